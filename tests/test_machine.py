"""What this machine has not, every test leaves out: here it is said."""

import machine
import pytest

CHOICES = [(kind, name) for kind, choices in machine.EVERYTHING.items() for name in choices]


@pytest.mark.parametrize(("kind", "name"), CHOICES, ids=str)
def test_runs_here(kind, name):
    if machine.EVERYTHING[kind][name]:
        pytest.skip(machine.EVERYTHING[kind][name])


def test_every_choice_of_paired_tests_runs(request):
    """Of what the mark thins out, that is: two marks of one test can leave less than each of them."""
    assert not request.session.stash[machine.LEFT_OUT]
