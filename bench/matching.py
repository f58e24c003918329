"""How well a person's records are found in training data, and how fast.

    python -m bench.matching --json FILE

A seeded generator writes records of invented customers of an insurer. Twenty of them a seed ask for erasure. Each has
ten records of every kind of mention below, and each record mentions the person once, in that way alone. Others share
the name, have a similar one, or the same family name. Every request is a search of its own over all records, by name,
e-mail address, customer number and phone number.

Measured: the share of records that are listed, and that are taken for the person's without a look (confidence of 0.6 or
more), by kind of mention; precision; how often others are listed. The same of an exclusion list, which holds digests
alone. Then records a second and peak memory over 1 GB of generated JSON Lines, and over the same rows as Parquet, each
in a process of its own; seconds are those of the processor. Intervals are over customers. Ten minutes on one free core,
2 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench._teach import row
from bench.records import CONDITIONS, MONTHS, OUTCOMES, PLACES, TEMPLATES, TOWNS
from loka._util.files import write_json
from loka.erasure import LIKELY, ExclusionList, Person, assess_data, exclude, read

EACH = 10  # records of a kind a customer
ASKING = 20  # customers a seed who ask
OTHERS = 300  # customers a seed who do not
KEY = b"a key for the bench alone"
# Real names, invented people. Several differ by a letter, as they do among customers.
GIVEN = (
    "Marta", "Maria", "Martha", "Mario", "Anna", "Anne", "Hanna", "Jan", "Jana", "Jens", "Peter", "Petra", "Lukas",
    "Łukasz", "Sofia", "Sofie", "José", "Josef", "Björn", "Zoë", "Françoise", "François", "Jürgen", "Ayşe", "Ngozi",
    "Priya", "Dmitri", "Wei", "Fatima", "Omar", "Elif", "Karin", "Karen", "Erik", "Erika", "Thomas", "Tomás", "Ingrid",
    "Søren", "Agnieszka", "Rosalind", "Leopold", "Beatrice", "Christian", "Christina", "Michael", "Michaela", "Vincent",
    "Anna-Lena", "Jean-Paul", "Karl-Heinz",
)  # fmt: skip
FAMILY = (
    "Meier", "Meyer", "Maier", "Schmidt", "Schmitt", "Hansen", "Jansen", "Janssen", "Müller", "Möller", "Novák",
    "Nowak", "Kowalski", "Fernández", "Hernández", "García", "O'Brien", "Brennan", "Larsson", "Larsen", "Petersen",
    "Pedersen", "Dubois", "Lefèvre", "Rossi", "Russo", "Y\u0131lmaz", "Okafor",
    "Sharma", "Ivanov", "Abbeling", "Brandow", "Cressingham", "Dunmoor", "Ellerby", "Farrow", "Gillam", "Hartsel",
    "Ingold", "Jessop", "Kettring", "Lathbury",
    "Marchbank", "Norwell", "Ostrey", "Pennock", "Quillan", "Ravensby", "Stannard", "Tolliver", "Underhay", "Vickrey",
    "Wainford", "Yardham", "Müller-Lüdenscheidt", "Kaltenbrunner", "Vandenberghe", "Papadopoulos", "Wiśniewska",
)  # fmt: skip
BY_EAR = (("ie", "y"), ("ei", "ay"), ("ph", "f"), ("ck", "k"), ("tt", "t"), ("ss", "s"), ("nn", "n"), ("ll", "l"),
          ("th", "t"), ("ch", "k"), ("w", "v"), ("y", "i"), ("k", "c"), ("c", "k"), ("z", "s"), ("v", "f"), ("s", "z"),
          ("e", "i"), ("i", "e"), ("a", "e"), ("o", "u"))  # fmt: skip
SCANS = (("m", "rn"), ("o", "0"), ("l", "1"), ("i", "l"), ("d", "cl"), ("s", "5"), ("b", "8"), ("w", "vv"), ("a", "4"))
PLAIN = str.maketrans("éèáíóçëñńśřšžåøęąş\u0131İŁł", "eeaiocennsrszaoeasiILl")
VOWELS, CONSONANTS = "aeiou", "bcdfghklmnprstvwz"


@dataclass(frozen=True)
class Customer:
    """An invented person."""

    given: str
    family: str
    number: str
    email: str
    phone: str

    @property
    def name(self) -> str:
        return f"{self.given} {self.family}"

    @property
    def person(self) -> Person:
        return Person(self.name, (), (self.email, self.number, self.phone))


@dataclass(frozen=True)
class Made:
    """One generated record: whose it is, and how it mentions the person. `of` is empty for those who do not ask."""

    of: str
    kind: str
    values: dict[str, Any]


def main() -> None:
    """Measure, print the rows, write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--megabytes", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        rows = quality(Path(place), range(options.seeds))
        rows += speed(Path(place), options.megabytes * 1_000_000)
    for one in rows:
        print(f"{one['name']:60} {one['value']:.3f} ({one['low']:.3f} to {one['high']:.3f}) {one['unit']}")
    write_json(options.json, rows)


# Records


def customers(n: int, rng: random.Random) -> list[Customer]:
    """Customers with names of their own."""
    names = rng.sample([(a, b) for a in GIVEN for b in FAMILY], n)
    return [customer(given, family, i, rng) for i, (given, family) in enumerate(names)]


def customer(given: str, family: str, i: int, rng: random.Random) -> Customer:
    """A customer of this name, with a number, an address and a phone of their own."""
    host = rng.choice(("example.org", "mail.example", "post.example.net"))
    email = f"{rng.choice(('info', 'kontakt', 'hello', 'me', 'home'))}{rng.randint(100, 99999)}.{i}@{host}"
    return Customer(
        given, family, f"C-{rng.randint(10**5, 10**6 - 1)}", email, f"+49 170 {rng.randint(10**6, 10**7 - 1)}"
    )


def one_letter(word: str, rng: random.Random) -> str:
    """The word with a letter changed, left out, doubled or swapped, anywhere."""
    i, way = rng.randrange(len(word)), rng.randrange(4)
    other = rng.choice((VOWELS if word[i].lower() in VOWELS else CONSONANTS).replace(word[i].lower(), ""))
    if way == 3 and i + 1 < len(word) and word[i].lower() != word[i + 1].lower():
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    return word[:i] + (other, "", word[i] * 2, other)[way] + word[i + 1 :]


def replaced(name: str, table: Sequence[tuple[str, str]], rng: random.Random) -> str:
    """The name with one of these replacements at one place where it fits; as it is if none fits."""
    fits = [(i, a, b) for a, b in table for i in range(1, len(name)) if name[i:].startswith(a)]
    if not fits:
        return name
    i, a, b = rng.choice(fits)
    return name[:i] + b + name[i + len(a) :]


def misspelt(c: Customer, letters: int, rng: random.Random) -> str:
    """The name with as many letters wrong, in either part."""
    parts = [c.given, c.family]
    for _ in range(letters):
        k = rng.randrange(2)
        parts[k] = one_letter(parts[k], rng)
    return " ".join(parts)


def parted(name: str, rng: random.Random) -> str:
    """The name parted within its last word, as at the end of a line."""
    i = rng.randint(2, len(name.split()[-1]) - 2)
    return f"{name[: len(name) - i]}-\n{name[len(name) - i :]}"


Way = Callable[[Customer, random.Random], str]
WAYS: dict[str, Way] = {
    "e-mail address": lambda c, r: r.choice((c.email, c.email.upper(), c.email.replace("@", " (at) "))),
    "customer number": lambda c, r: c.number,
    "customer number, written otherwise": lambda c, r: c.number.replace("-", r.choice(("", " ", "/"))).lower(),
    "phone number, written otherwise": lambda c, r: r.choice((
        c.phone.replace("+49 ", "0").replace(" ", "/", 1), c.phone.replace("+", "00"), c.phone.replace(" ", "-"),
        c.phone[:10] + " " + c.phone[10:12] + " " + c.phone[12:],
    )),
    "full name": lambda c, r: c.name,
    "capitals": lambda c, r: c.name.upper(),
    "without accents": lambda c, r: c.name.translate(PLAIN).replace("ü", "ue").replace("ö", "oe").replace("-", " "),
    "changed order": lambda c, r: f"{c.family}, {c.given}",
    "a middle name": lambda c, r: f"{c.given} {r.choice(GIVEN)} {c.family}",
    "initial": lambda c, r: r.choice((f"{c.given[0]}. {c.family}", f"{c.family}, {c.given[0]}.")),
    "written as one word": lambda c, r: r.choice((f"{c.given}{c.family}", f"{c.given}_{c.family}".lower())),
    "parted at the end of a line": lambda c, r: parted(c.name, r),
    "one letter wrong": lambda c, r: misspelt(c, 1, r),
    "two letters wrong": lambda c, r: misspelt(c, 2, r),
    "written by ear": lambda c, r: f"{c.given} {replaced(c.family, BY_EAR, r)}",
    "scanned": lambda c, r: replaced(c.name, SCANS, r),
    "family name and title": lambda c, r: f"{r.choice(('Mrs', 'Mr', 'Herr', 'Frau', 'Dr.'))} {c.family}",
}  # fmt: skip
OTHER = ("namesake with a number", "namesake without a number", "similar name", "family name shared", "others")


def generated(seed: int) -> tuple[list[Customer], list[Made]]:
    """The customers who ask, and all records in random order."""
    rng = random.Random(f"{seed}/matching")
    people = customers(ASKING + OTHERS, rng)
    asking, others = people[:ASKING], people[ASKING:]
    taken = {c.name for c in people}
    made = [record(c.number, kind, way(c, rng), rng) for c in asking for kind, way in WAYS.items() for _ in range(EACH)]
    made += [Made(c.number, "fields of their own", fields(c, rng)) for c in asking for _ in range(EACH)]
    for c in asking:
        twin = customer(c.given, c.family, 0, rng)
        near = next(n for _ in range(99) if (n := misspelt(c, 1, rng)) not in taken)
        aunt = f"{rng.choice([g for g in GIVEN if g[0] != c.given[0]])} {c.family}"
        for _ in range(EACH):
            made.append(record("", "namesake with a number", f"{twin.name} ({twin.number})", rng))
            made.append(record("", "namesake without a number", twin.name, rng))
            made.append(record("", "similar name", near, rng))
            made.append(record("", "family name shared", aunt, rng))
    for c in others:
        made += [record("", "others", f"{c.name} ({c.number}, {c.email})", rng) for _ in range(EACH)]
        made += [record("", "others", rng.choice(list(WAYS.values()))(c, rng), rng) for _ in range(EACH)]
    return asking, rng.sample(made, len(made))


def record(of: str, kind: str, mention: str, rng: random.Random) -> Made:
    """A claim that mentions a person in this way."""
    return Made(of, kind, {"text": claim(mention, rng), "branch": rng.choice(TOWNS)})


def claim(mention: str, rng: random.Random) -> str:
    """The text of a claim."""
    date = f"{rng.randint(1, 28)} {rng.choice(MONTHS)} {rng.randint(2017, 2024)}"
    return rng.choice(TEMPLATES).format(
        name=mention, town=rng.choice(TOWNS), date=date, condition=rng.choice(CONDITIONS), place=rng.choice(PLACES),
        amount=rng.randint(40, 990), outcome=rng.choice(OUTCOMES),
    )  # fmt: skip


def fields(c: Customer, rng: random.Random) -> dict[str, Any]:
    """A row of a table, with the name in two columns that are apart."""
    return {"given": c.given, "note": claim("the customer", rng), "surname": c.family}


# Recall and precision


def quality(place: Path, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Rows by kind of mention, over the customers of all seeds."""
    found: dict[str, dict[str, float]] = {}
    for seed in seeds:
        asking, made = generated(seed)
        path = place / f"records-{seed}.jsonl"
        path.write_text("".join(json.dumps(m.values, ensure_ascii=False) + "\n" for m in made), encoding="utf-8")
        for c in asking:
            impact = assess_data(c.person, [path])
            by_row = {hit.row - 1: hit.confidence for hit in impact.hits}
            add(found, f"{seed}/{c.number}", c, made, {"listed": by_row, "likely": above(by_row, LIKELY)})
            screen = ExclusionList(KEY).add(c.person, "P").screen()
            held = {r.row - 1: 1.0 for r in read(path) if screen.match(r)}
            add(found, f"{seed}/{c.number}", c, made, {"held back": held})
    return [
        row(name, samples, unit="records" if "another's" in name else "share", stored=False)
        for name, samples in sorted(found.items())
    ]


def above(by_row: Mapping[int, float], least: float) -> dict[int, float]:
    return {i: confidence for i, confidence in by_row.items() if confidence >= least}


def add(
    found: dict[str, dict[str, float]],
    key: str,
    c: Customer,
    made: Sequence[Made],
    ways: Mapping[str, Mapping[int, float]],
) -> None:
    """Add one customer's shares: of the records of each kind, and of what was found."""
    for way, hits in ways.items():
        for kind in (*WAYS, "fields of their own"):
            own = [i for i, m in enumerate(made) if m.of == c.number and m.kind == kind]
            found.setdefault(f"{way}: {kind}", {})[key] = sum(i in hits for i in own) / len(own)
        for kind in OTHER:
            n = sum(made[i].kind == kind for i in hits if made[i].of != c.number)
            found.setdefault(f"{way}, another's: {kind}", {})[key] = n
        own = [i for i, m in enumerate(made) if m.of == c.number]
        right = sum(made[i].of == c.number for i in hits)
        found.setdefault(f"{way}: recall", {})[key] = right / len(own)
        found.setdefault(f"{way}: precision", {})[key] = right / max(len(hits), 1)
        namesakes = sum(made[i].kind == "namesake without a number" for i in hits)
        found.setdefault(f"{way}: precision without namesakes that have no number", {})[key] = right / max(
            len(hits) - namesakes, 1
        )


# Speed and memory


def speed(place: Path, size: int) -> list[dict[str, Any]]:
    """Rows on a large file, searched in a new process each."""
    rng = random.Random("speed")
    c = customers(1, rng)[0]
    lines, table = place / "large.jsonl", place / "large.parquet"
    write_lines(lines, c, size, rng)
    write_table(lines, table)
    small = place / "small.jsonl"
    with open(lines, encoding="utf-8") as source, open(small, "w", encoding="utf-8") as out:
        out.writelines(line for _, line in zip(range(100_000), source, strict=False))
    made = []
    for name, job, path in (
        ("assess, JSON Lines", assess_job, lines), ("assess, Parquet", assess_job, table),
        ("exclude, JSON Lines, both passes", exclude_job, small),
    ):  # fmt: skip
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            found = pool.submit(job, c, path).result()
        settings = {"megabytes": round(path.stat().st_size / 1e6), "records": found["records"]}
        for what, unit in (("records a second", "records"), ("peak memory", "MiB"), ("memory before", "MiB")):
            made.append(row(f"{name}: {what}", {"all": found[what]}, unit=unit, stored=False) | {"settings": settings})
    return made


def assess_job(c: Customer, path: Path) -> dict[str, float]:
    return timed(lambda: assess_data(c.person, [path]).total.records)


def exclude_job(c: Customer, path: Path) -> dict[str, float]:
    exclusions = ExclusionList(KEY)
    rng = random.Random("entries")
    for i, other in enumerate([c, *customers(100, rng)[1:]]):
        exclusions = exclusions.add(other.person, f"P-{i}")
    return timed(lambda: exclude(exclusions, path, path.with_name("filtered.jsonl")).records)


def timed(job: Callable[[], int]) -> dict[str, float]:
    """What a job takes in this process: its own time, since others may use the cores, and memory (Linux only)."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of the imports
    before = memory("VmRSS")
    start = time.process_time()
    records = job()
    seconds = time.process_time() - start
    return {
        "records": records, "records a second": records / seconds, "peak memory": memory("VmHWM"),
        "memory before": before,
    }  # fmt: skip


def memory(what: str) -> float:
    """This process's memory in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 2**10


def write_lines(path: Path, c: Customer, size: int, rng: random.Random) -> None:
    """Records of about 600 bytes with words of a large vocabulary; one in 10,000 mentions the customer."""
    vocabulary = [
        "".join(rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in range(rng.randint(1, 4))) for _ in range(60_000)
    ]
    texts = [f"{claim('{name}', rng)} {' '.join(rng.choices(vocabulary, k=60))}." for _ in range(5_000)]
    others = [f"{a} {b}" for a in GIVEN for b in FAMILY if b != c.family]
    ways = list(WAYS.values())
    with open(path, "w", encoding="utf-8") as out:
        written = i = 0
        while written < size:
            i += 1
            name = rng.choice(ways)(c, rng) if i % 10_000 == 0 else rng.choice(others)
            text = f"{rng.choice(texts).replace('{name}', name)} Policy {rng.randint(10**7, 10**8)}, file {i}."
            written += out.write(json.dumps({"id": i, "text": text, "branch": rng.choice(TOWNS)}) + "\n")


def write_table(lines: Path, path: Path) -> None:
    """The same rows as Parquet, 100,000 in a row group."""
    schema = pa.schema([("id", pa.int64()), ("text", pa.string()), ("branch", pa.string())])
    with pq.ParquetWriter(path, schema) as out:
        for rows in batches(lines):
            out.write_table(pa.Table.from_pylist(rows, schema))


def batches(lines: Path) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    with open(lines, encoding="utf-8") as file:
        for line in file:
            rows.append(json.loads(line))
            if len(rows) == 100_000:
                yield rows
                rows = []
    yield rows


if __name__ == "__main__":
    main()
