"""Gene symbols that a spreadsheet turned into dates: ``2-Sep`` was SEPT2, which is now SEPTIN2."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta

from gimp_fast.data.rna.values import Expression

DATES = "dates"  # in the provenance: name -> the genes it may stand for
_SHOWN = 8
# Months as spreadsheets write them in English, German, French, Spanish, Italian, Portuguese, Dutch,
# Polish and the Scandinavian languages.
_WORDS = (
    "jan january januar janv janvier ene enero gen gennaio janeiro januari sty",
    "feb february februar févr fév février fevr febrero febbraio fev fevereiro februari lut",
    "mar march mrz mär märz maer maerz mars marzo março mrt maart marca",
    "apr april avr avril abr abril aprile kwi",
    "may mai mayo mag maggio maio mei maj",
    "jun june juni juin junio giu giugno junho cze",
    "jul july juli juil juillet julio lug luglio julho lip",
    "aug august août aoû agosto ago augustus augusti sie",
    "sep sept september septembre septiembre set sett settembre setembro wrz",
    "oct october okt oktober octobre octubre ott ottobre out outubro paź",
    "nov november novembre noviembre novembro lis",
    "dec december dez dezember déc décembre dic diciembre dicembre dezembro gru",
)
_MONTHS = {word: n for n, words in enumerate(_WORDS, start=1) for word in words.split()}
# Names of HGNC: former -> present. Several of one number are the same date.
_RENAMED = {
    **{f"MARCH{n}": f"MARCHF{n}" for n in range(1, 12)},
    **{f"MARC{n}": f"MTARC{n}" for n in (1, 2)},
    **{f"SEPT{n}": f"SEPTIN{n}" for n in (*range(1, 13), 14)},
    "SEP15": "SELENOF",
    "DEC1": "DELEC1",
    "OCT4": "POU5F1",
}
_FORMER = {present: former for former, present in _RENAMED.items()}
_SEP = r"[-./ ]{1,2}"
_WORD = r"([^\W\d_]{3,12})"
# A first look, which nearly all names fail.
_MAYBE = re.compile(rf"\d{{1,2}}[-./ 月]|\d{{4}}[-/.年]|{_WORD}\.?[-./ ]|\d{{5}}(?:\.0)?$")
_DAY_MONTH = re.compile(rf"(\d{{1,2}}){_SEP}{_WORD}\.?(?:{_SEP}(?:\d\d|\d{{4}}))?")
_MONTH_DAY = re.compile(rf"{_WORD}\.?{_SEP}(\d{{1,2}}|20\d\d)(?:,?{_SEP}(?:\d\d|\d{{4}}))?")
_ISO = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?:[T ]\d{1,2}:\d\d(?::\d\d(?:\.\d+)?)?)?")
_NUMBERS = re.compile(r"(\d{1,2})[-/.](\d{1,2})[-/.](?:\d\d|\d{4})(?: \d{1,2}:\d\d(?::\d\d)?)?")
_EAST = re.compile(r"(?:\d{4}年)?(\d{1,2})月(\d{1,2})日")
_SERIAL = re.compile(r"(\d{5})(?:\.0)?")
_FIRST_DAY = date(1899, 12, 30)  # of spreadsheets, which count days
_SERIALS = range(36_000, 60_000)  # from 1998 to 2064


def find_dates(names: Sequence[str]) -> dict[int, tuple[str, ...]]:
    """Place -> the genes that a name which looks like a date may stand for, none if unknown.

    Five digits are a date only where most names are no numbers: Entrez ids are numbers.
    """
    maybe = [place for place, name in enumerate(names) if _MAYBE.match(name)]
    found = {}
    if not maybe:
        return found
    symbols = sum(not name.isdigit() for name in names) > len(names) / 2
    for place in maybe:
        days = _days(names[place], symbols)
        if days:
            genes = (_RENAMED.get(name) for day in days for name in _names_of(*day))
            found[place] = tuple(dict.fromkeys(filter(None, genes)))
    return found


def _days(name: str, symbols: bool) -> list[tuple[int, int]]:
    """(month, day) that a name may mean; none if it is no date."""
    if match := _DAY_MONTH.fullmatch(name):
        days = [(_MONTHS.get(match[2].lower(), 0), int(match[1]))]
    elif match := _MONTH_DAY.fullmatch(name):
        # Worms have genes such as set-1; spreadsheets write Sep-01.
        is_name = len(match[2]) == 1 and match[1].islower()
        days = [(0 if is_name else _MONTHS.get(match[1].lower(), 0), int(match[2][-2:]))]
    elif match := _ISO.fullmatch(name):
        year, month, day = map(int, match.groups())
        days = [(month, day)] + [(month, year % 100)] * (day == 1)  # Sep-02 is September 2002 too
    elif match := _NUMBERS.fullmatch(name):
        first, second = map(int, match.groups())
        days = [(first, second), (second, first)]
    elif match := _EAST.fullmatch(name):
        days = [(int(match[1]), int(match[2]))]
    elif symbols and (match := _SERIAL.fullmatch(name)) and int(match[1]) in _SERIALS:
        day = _FIRST_DAY + timedelta(days=int(match[1]))
        days = [(day.month, day.day)] + [(day.month, day.year % 100)] * (day.day == 1)
    else:
        return []
    return [day for day in days if 1 <= day[0] <= 12 and 1 <= day[1] <= 31]


def _names_of(month: int, day: int) -> tuple[str, ...]:
    words = {3: ("MARCH", "MARC"), 9: ("SEPT", "SEP"), 10: ("OCT",), 12: ("DEC",)}
    return tuple(f"{word}{day}" for word in words.get(month, ()))


def other_name(symbol: str) -> str:
    """The present name of a gene that HGNC renamed because of spreadsheets, or the former one."""
    return _RENAMED.get(symbol) or _FORMER.get(symbol, "")


def describe_dates(source: object, names: Sequence[str], places: Sequence[str]) -> str:
    """One caution about the names that look like dates; empty if none does.

    Args:
        source: the file.
        names: of genes.
        places: where each of them is, e.g. ``row 4``; may be empty.
    """
    found, shown = find_dates(names), []
    for place, genes in list(found.items())[:_SHOWN]:
        where = f" in {places[place]}" if places else ""
        meant = " or ".join(f"{gene}, once {_FORMER[gene]}" for gene in genes)
        shown.append(f"'{names[place]}'{where} ({meant or 'of no known gene'})")
    if not found:
        return ""
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    what = "gene name looks like a date" if len(found) == 1 else "gene names look like dates"
    return (
        f"{source}: {len(found)} {what}, as a spreadsheet makes of symbols: {', '.join(shown)}"
        f"{more}. Correct the file, or export it again without a spreadsheet"
    )


def note_dates(expression: Expression, source: object) -> Expression:
    """The expression, with a caution in its provenance if names of genes look like dates."""
    if DATES in expression.provenance:  # of joined sources, each has been looked at
        return expression
    ids = [row["gene_id"] for row in expression.genes]
    symbols = [row["gene_name"] for row in expression.genes]
    names, dates = ids, find_dates(ids)
    if not dates:
        names, dates = symbols, find_dates(symbols)
    if not dates:
        return expression
    text = describe_dates(source, names, expression.places)
    facts = expression.provenance
    facts = facts | {
        "cautions": [*facts.get("cautions", []), text],
        DATES: facts.get(DATES, {}) | {names[n]: list(genes) for n, genes in dates.items()},
    }
    return replace(expression, provenance=facts)


def why_lost(name: str, measured: Collection[str], dates: Mapping[str, Sequence[str]]) -> str:
    """Where a gene that was asked for may be in the table; empty if nothing is known.

    Args:
        name: of the gene.
        measured: ids and names of the table.
        dates: as ``note_dates`` recorded them.
    """
    other = other_name(name)
    if other and other in measured:
        return f"the table has its other name, {other}"
    became = [date for date, genes in dates.items() if {name, other} & {*genes}]
    return f"it may have become the date '{became[0]}'" if became else ""


def describe_losses(source: object, lost: Iterable[tuple[str, str, str]]) -> str:
    """One caution about genes that the table has under another name; empty if there are none.

    Args:
        source: the gene list or the gene sets.
        lost: (list or set, gene, what ``why_lost`` says).
    """
    of_title: dict[str, list[str]] = {}
    for title, gene, why in lost:
        if why:
            of_title.setdefault(title, []).append(f"{gene} ({why})")
    listed = [f"{title} loses {', '.join(genes[:_SHOWN])}" + ", …" * (len(genes) > _SHOWN)
              for title, genes in of_title.items()]  # fmt: skip
    more = f"; and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return f"{source}: {'; '.join(listed[:_SHOWN])}{more}" if listed else ""
