"""Cases are declared beside functions, and change nothing about them."""

import jax
import pytest

import gradkit as gk
from gradkit.verify import Case, case, cases_of, declared_in


def test_the_function_is_returned_as_it_is():
    def double(x):
        return 2 * x

    assert case(1.0)(double) is double
    assert double(3) == 6


def test_cases_are_numbered_from_the_bottom_unless_named():
    @case(3.0)
    @case(2.0, name="two")
    @case(1.0, order=2)
    def double(x):
        return 2 * x

    assert [c.name for c in cases_of(double)] == ["1", "two", "3"]
    assert cases_of(double)[0].options == {"order": 2}


def test_cases_run_with_their_options():
    @case(1.0, order=2)
    def cube(x):
        return x**3

    (declared,) = cases_of(cube)
    assert declared.run(cube).order == 2
    assert declared.run(cube, order=1).order == 1


@pytest.mark.parametrize(
    "wrap",
    [
        jax.jit,
        gk.custom_gradient,
        gk.op("CaseSquare"),
        jax.custom_vjp,
        jax.custom_jvp,
    ],
    ids=["jit", "custom_gradient", "op", "custom_vjp", "custom_jvp"],
)
def test_decorated_functions_take_cases(wrap):
    wrapped = wrap(lambda x: x * x)
    case(2.0)(wrapped)
    assert len(cases_of(wrapped)) == 1


def test_custom_gradient_above_a_case_is_what_is_checked():
    @gk.custom_gradient
    @case(2.0)
    def square(x):
        return x * x, lambda y_bar: 5 * x * y_bar

    (declared,) = cases_of(square)
    assert declared.run(square).verdict == "wrong"


def test_what_takes_no_attributes_is_refused():
    with pytest.raises(TypeError) as error:
        case(1.0)(len)
    assert "cannot declare a case on 'len'" in str(error.value)
    assert "decorate a def" in str(error.value)


def test_unknown_options_are_refused():
    with pytest.raises(TypeError) as error:
        case(1.0, oder=2)
    assert "did you mean 'order'" in str(error.value)
    assert "functools.partial" in str(error.value)


def test_objects_with_every_attribute_declare_nothing():
    class Mock:
        def __getattr__(self, name):
            return self

    assert cases_of(Mock()) == ()


def test_only_functions_of_the_module_itself_are_found():
    @case(1.0)
    def own(x):
        return x

    @case(1.0)
    def imported(x):
        return x

    own.__module__, imported.__module__ = "here", "elsewhere"
    namespace = {"own": own, "alias": own, "imported": imported, "number": 3}
    assert list(declared_in(namespace, "here")) == [("own", own)]
    assert isinstance(cases_of(own)[0], Case)
