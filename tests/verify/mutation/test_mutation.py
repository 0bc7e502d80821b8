"""The check finds slips in the rules of the sweep: a sample here, all of them when slow."""

import pytest

from tests.verify.mutation import oracle, sweep
from tests.verify.mutation.explained import EXPLAINED
from tests.verify.mutation.mutate import make_mutants
from tests.verify.mutation.rule import WRAPPERS, with_custom_vjp
from tests.verify.mutation.rules import RULES

MUTANTS = [mutant for rule in RULES.values() for mutant in make_mutants(rule)]
SAMPLE = sweep.spread(MUTANTS, 28)


def test_there_are_enough_rules_and_mutants():
    assert len(RULES) >= 32
    assert len(MUTANTS) >= 1_000


def test_mutants_have_names_of_their_own_and_a_change_to_show():
    assert len({mutant.id for mutant in MUTANTS}) == len(MUTANTS)
    assert all(mutant.before != mutant.after for mutant in MUTANTS)


def test_each_rule_has_mutants():
    assert {mutant.rule.name for mutant in MUTANTS} == set(RULES)


def test_explanations_are_of_mutants_that_exist():
    assert set(EXPLAINED) <= {mutant.id for mutant in MUTANTS}


def test_rules_without_a_slip_are_right():
    functions = {rule: with_custom_vjp(rule, rule.fwd, rule.bwd) for rule in RULES.values()}
    verdicts = oracle.judge_all(functions)
    assert {verdict.status for verdict in verdicts.values()} == {oracle.EQUIVALENT}, verdicts


@pytest.mark.parametrize("name", RULES)
def test_rule_without_a_slip_is_called_ok(name):
    rule = RULES[name]
    f = with_custom_vjp(rule, rule.fwd, rule.bwd)
    assert sweep.check(rule, f, budget=0.0) == (sweep.OK, ())  # the slow test looks further


@pytest.mark.parametrize("mutant", SAMPLE, ids=lambda mutant: mutant.id)
def test_slip_is_found(mutant):
    verdict, _ = sweep.check(mutant.rule, sweep.wrapped(mutant))
    if verdict != sweep.WRONG:  # the oracle is slow, and few have need of it
        outcome = sweep.try_mutant(mutant)
        assert not outcome.fails, outcome


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", RULES)
def test_all_slips_are_found(name, wrapper):
    ids = [mutant.id for mutant in make_mutants(RULES[name])]
    failing = [outcome for outcome in sweep.sweep_rule(name, ids, wrapper) if outcome.fails]
    assert not failing, "\n".join(map(str, failing))
