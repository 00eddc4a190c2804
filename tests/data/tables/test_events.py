"""Events: every known coding means the same, and what may mean two things is refused."""

from __future__ import annotations

import pytest

from gimp_fast.data.tables.outcomes import TargetSpec, read_outcomes
from gimp_fast.files.table import open_table


def read(folder, events, option="", column="status"):
    """What a table of patients with these events says, and its faults."""
    rows = [f"p{n},{n + 300},{event}\n" for n, event in enumerate(events)]
    (folder / "c.csv").write_text(f"case_id,days,{column}\n{''.join(rows)}", encoding="utf-8")
    spec = TargetSpec.parse(f"os=survival:days,{column}{option}")
    outcomes = read_outcomes(open_table(folder / "c.csv"), [spec])
    return outcomes.value[0], list(outcomes.faults)


def events_of(target):
    return [outcome.event for outcome in target.values.values()]


CODINGS = {
    "digits": ("0", "1"),
    "decimals": ("0.0", "1.0"),
    "logical": ("False", "TRUE"),
    "gdc": ("Alive", "Dead"),
    "living": ("LIVING", "DECEASED"),
    "words": ("Censored", "event"),
    "cbioportal-os": ("0:LIVING", "1:DECEASED"),
    "cbioportal-dss": ("0:ALIVE OR DEAD TUMOR FREE", "1:DEAD WITH TUMOR"),
    "cbioportal-pfs": ("0:CENSORED", "1:PROGRESSION"),
    "cbioportal-dfs": ("0:DiseaseFree", "1:Recurred/Progressed"),
}


@pytest.mark.parametrize(("censored", "event"), CODINGS.values(), ids=CODINGS)
def test_known_codings(tmp_path, censored, event):
    texts = [censored, event, event, censored.upper(), event.lower(), censored.lower()]
    target, faults = read(tmp_path, texts)
    assert faults == []
    assert events_of(target) == [False, True, True, False, True, False]
    assert (target.notes, target.cautions) == ((), ())


def test_digits_with_and_without_decimals_are_one_coding(tmp_path):
    target, faults = read(tmp_path, ["0", "0.0", "1.0", "1"])
    assert (events_of(target), faults) == ([False, False, True, True], [])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["0", "1", "dead"], "the values '0', '1', 'dead'; expected only one of these pairs: 0 "),
        (["alive", "deceased"], "the values 'alive', 'deceased'"),
        (["0", "true"], "the values '0', 'true'"),
        (["0:LIVING", "1"], "the values '0:LIVING', '1'"),
        (["0:LIVING", "2:DECEASED"], "the values '0:LIVING', '2:DECEASED'"),
        (["0:DECEASED", "1:LIVING"], "the values '0:DECEASED', '1:LIVING'"),
        (["0:event", "1:censored"], "the values '0:event', '1:censored'"),
        (["1", "2"], "the codes '1', '2', as R's survival package may write 'censored' and 'dead'; "
                     "expected 0 and 1: write 0 in place of 1 (censored), and 1 in place of 2"),
        (["2"], "the codes '2', as R's"),
        (["0", "1", "2"], "the values '0', '1', '2'"),
        (["yes", "no"], "the values 'no', 'yes'"),
        (["0", "-1"], "the values '-1', '0'"),
        (["0.5", "1"], "the values '0.5', '1'"),
        (["x1", "x2", "x3", "x4", "x5", "x6", "x7"], "'x4', 'x5' and 2 more; expected"),
    ],
    ids=["mixed", "two-pairs", "digit-and-word", "cbioportal-and-digit", "cbioportal-2", "turned",
         "turned-words", "r", "r-dead", "competing", "yes-no", "minus", "half", "many"],
)  # fmt: skip
def test_refused_codings(tmp_path, texts, message):
    target, (fault,) = read(tmp_path, texts)
    assert target.values == {}
    assert fault.kind == "event-coding"
    assert fault.where == f"{tmp_path / 'c.csv'} column 'status'"
    assert message in str(fault)


TURNED = ["censorship", "os_censorship", "censored", "censor", "is_censored", "isCensored", "Cens",
          "OS.censoring", "uncensored", "alive", "is_living"]  # fmt: skip


@pytest.mark.parametrize("column", TURNED)
def test_a_name_that_may_turn_the_meaning_is_asked_about(tmp_path, column):
    _, (fault,) = read(tmp_path, ["0", "0", "1.0", "0", "1"], column=column)
    assert fault.kind == "event-coding"
    assert fault.found == (
        "3 patients with 0 and 2 patients with 1 in a column whose name leaves open which of them "
        "had an event"
    )
    assert fault.expected == (
        f"'os=survival:days,{column}:censorship' if 1 means censored (3 events, 2 censored), or "
        f"'os=survival:days,{column}:event' if 1 means an event (2 events, 3 censored)"
    )
    spec = fault.expected.split("'")[1]
    assert TargetSpec.parse(spec).coding == "censorship"


def test_true_and_false_in_such_a_column(tmp_path):
    _, (fault,) = read(tmp_path, ["False", "True", "True"], column="is_censored")
    assert "1 patient with false and 2 patients with true" in fault.found
    assert "if true means censored (1 event, 2 censored)" in fault.expected


@pytest.mark.parametrize("column", ["status", "os_event", "license_event", "OS", "vital_status"])
def test_other_names_are_not_asked_about(tmp_path, column):
    target, faults = read(tmp_path, ["0", "1"], column=column)
    assert (events_of(target), faults) == ([False, True], [])


@pytest.mark.parametrize("column", ["censorship", "os_event"])
@pytest.mark.parametrize("texts", [["0", "1", "1"], ["false", "true", "true"]], ids=["01", "words"])
def test_options_say_what_a_1_means(tmp_path, column, texts):
    target, faults = read(tmp_path, texts, ":event", column)
    assert (events_of(target), faults) == ([False, True, True], [])
    target, faults = read(tmp_path, texts, ":censorship", column)
    assert (events_of(target), faults) == ([True, False, False], [])


def test_words_cannot_be_turned(tmp_path):
    _, (fault,) = read(tmp_path, ["Alive", "Dead"], ":censorship")
    assert "'Alive', 'Dead', and the option ':censorship'; expected no such option" in str(fault)
    target, faults = read(tmp_path, ["Alive", "Dead"], ":event", "censorship")
    assert (events_of(target), faults) == ([False, True], [])


def test_all_events_are_cautioned_about(tmp_path):
    target, faults = read(tmp_path, ["1", "1", "1"])
    assert (events_of(target), faults) == ([True, True, True], [])
    assert target.cautions == (
        "target 'os': each of 3 patients has an event, and none is censored: is column "
        "'status' that of events?",
    )


@pytest.mark.parametrize(
    ("texts", "option"), [(["0", "0"], ""), (["alive"], ""), (["1"], ":censorship")]
)
def test_no_event_is_a_fault(tmp_path, texts, option):
    _, (fault,) = read(tmp_path, texts, option)
    assert fault.kind == "no-event"
    assert "found no event among" in str(fault)


def test_missing_events_are_not_known(tmp_path):
    missing = ["", "NA", "nan", "None", ".", "[Not Available]", "[Discrepancy]", "'--",
               "Not Reported", "unknown"]  # fmt: skip
    target, faults = read(tmp_path, ["0", "1", *missing])
    assert (events_of(target), faults) == ([False, True], [])
    assert target.notes == (
        "target 'os': column 'status': read as missing: ''--' in 1, 'Not Reported' in 1, "
        "'[Discrepancy]' in 1, '[Not Available]' in 1, 'unknown' in 1",
        "target 'os': 10 patients with a time and no event",
        "target 'os': 10 of 12 patients left out",
    )
