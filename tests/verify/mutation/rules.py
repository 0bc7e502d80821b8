"""The rules of the sweep."""

from tests.verify.mutation import elementwise, linear, losses, normalisation, sequences

RULES = {
    rule.name: rule
    for rules in (elementwise, losses, normalisation, linear, sequences)
    for rule in rules.RULES
}
