"""Every payment method type is whole: its row, its form in the API, its maker, and what one needs of the other."""

import pytest

from tillway.api.method_types import FORMS, TYPE_NAMES
from tillway.domain.method_types import METHOD_TYPES
from tillway.http.params import Object
from tillway.operations.payment_methods import MAKERS


def test_each_type_has_a_row_and_a_form() -> None:
    without_form = METHOD_TYPES.keys() - FORMS.keys()
    without_row = FORMS.keys() - METHOD_TYPES.keys()
    assert not without_form, f"add a form in api/method_types.py: {sorted(without_form)}"
    assert not without_row, f"add a row in domain/method_types.py: {sorted(without_row)}"
    assert len(set(TYPE_NAMES)) == len(TYPE_NAMES), "a type with a form stands among those without"


@pytest.mark.parametrize("name", METHOD_TYPES)
def test_the_form_has_all_that_the_row_needs(name: str) -> None:
    row, form = METHOD_TYPES[name], FORMS[name]
    assert row.holds in MAKERS, f"{name}: add to MAKERS in operations/payment_methods.py how a {row.holds} is made"
    assert isinstance(form.parameters, Object), f"{name}: its parameters are an object"
    missing = set(row.needs) - form.parameters.members.keys()
    assert not missing, f"{name}: the row needs {sorted(missing)}, which the form's parameters do not have"
    assert (form.of_mandate is not None) == row.needs_mandate, (
        f"{name}: a form has of_mandate exactly where the row needs a mandate"
    )
    assert (form.setup_options is not None) == (not row.setup_refusal), (
        f"{name}: a form has setup_options exactly where the row allows setups"
    )
