"""How simulated hosts are told to behave: settings, distributions, orders; what is not understood is named."""

import pytest

from pileus.wire.operations import Reason
from pileus.wire.orders import BadOrders, Mishap, Order, read_orders
from pileus.wire.simulated import BadBehaviour, behaviour, is_setting, spread


def test_settings_say_what_happens_and_later_ones_are_on_top() -> None:
    first = behaviour({"latency": "0.5", "refuse": "0.1", "refuse.StartVm": "0.2", "die": "0.5:uniform:10:20"})
    made = behaviour({"latency.StartVm": "lognormal:1:4", "late": "0.3:constant:5", "reason": "no-room"}, on=first)
    assert made.latency_of("AttachPool").at(0.5) == 0.5
    assert made.latency_of("StartVm").at(0.5) < 1
    assert (made.refuse_of("StartVm"), made.refuse_of("StopVm"), made.reason) == (0.2, 0.1, Reason.NO_ROOM)
    assert (made.die.an_hour, made.die.lasts.at(0.0), made.die.lasts.at(1.0)) == (0.5, 10, 20)
    assert (made.late, made.lateness.at(0.9)) == (0.3, 5)
    assert (made.restless, behaviour({"refuse": "1"}).restless) == (True, False)


@pytest.mark.parametrize(("mean", "p99"), [(0.05, 0.4), (1, 1), (2, 3), (1, 14.9)])
def test_a_lognormal_distribution_has_the_mean_and_the_99th_percentile_it_was_given(mean: float, p99: float) -> None:
    made = spread("latency", f"lognormal:{mean}:{p99}")
    assert made.at(0.99) == pytest.approx(p99, rel=1e-6)
    steps = 200_000
    assert sum(made.at((n + 0.5) / steps) for n in range(steps)) / steps == pytest.approx(mean, rel=0.02)


@pytest.mark.parametrize(
    "text",
    ["", "x", "-1", "nan", "inf", "constant", "constant:1:2", "uniform:2:1", "uniform:1", "normal:1:2", "1e9",
     "lognormal:0:1", "lognormal:2:1", "lognormal:1:15.1"],
)  # fmt: skip
def test_what_is_no_distribution_is_refused_with_the_name_of_the_setting(text: str) -> None:
    with pytest.raises(BadBehaviour, match=r"^latency\.StartVm: "):
        behaviour({"latency.StartVm": text})


@pytest.mark.parametrize(
    ("name", "text"),
    [("refuse", "1.1"), ("refuse.Nothing", "0"), ("lose", "often"), ("die", "3601"), ("die", "1:x"), ("reason", "why"),
     ("late", "0.1:uniform:2:1"), ("crash", "-1"), ("lose.StartVm", "0.1"), ("sleep", "1")],
)  # fmt: skip
def test_a_setting_that_cannot_be_used_is_named(name: str, text: str) -> None:
    with pytest.raises(BadBehaviour, match=f"^{name.replace('.', '[.]')}: "):
        behaviour({name: text})


def test_settings_are_known_by_name() -> None:
    assert all(map(is_setting, ("latency", "latency.StartVm", "refuse.StopVm", "die", "shutdown")))
    assert not any(map(is_setting, ("seed", "cpus", "lat", "")))


def test_a_document_of_orders() -> None:
    read = read_orders(
        '[behaviour]\nlatency = 0.5\n"refuse.StartVm" = "0.1"\n'
        '[[mishap]]\nwhat = "die"\nhosts = "sim-1*"\nshare = 0.5\nseconds = 5\nafter = 1\n[[mishap]]\nwhat = "cut"\n'
    )
    assert read.settings == {"latency": "0.5", "refuse.StartVm": "0.1"}
    assert read.mishaps == (Order(Mishap.DIE, "sim-1*", 0.5, 5.0, 1.0), Order(Mishap.CUT))
    assert [read.mishaps[0].about(name, 0.4) for name in ("sim-1", "sim-12", "sim-2")] == [True, True, False]
    assert not read.mishaps[0].about("sim-1", 0.5)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("x", "."),
        ("other = 1", "other"),
        ("behaviour = 1", "behaviour"),
        ("[behaviour]\nx = 1", "x"),
        ("[[mishap]]", "what"),
        ('[[mishap]]\nwhat = "explode"', "what"),
        ('[[mishap]]\nwhat = "die"\nhosts = 1', "hosts"),
        ('[[mishap]]\nwhat = "die"\nshare = 2', "share"),
        ('[[mishap]]\nwhat = "die"\nseconds = "long"', "seconds"),
        ('[[mishap]]\nwhat = "die"\nafter = true', "after"),
        ('[[mishap]]\nwhat = "die"\nwhen = 1', "when"),
        ("mishap = [1]", "mishap 1"),
    ],
)
def test_orders_that_cannot_be_used_are_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(BadOrders, match=named):
        read_orders(text)
