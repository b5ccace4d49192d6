"""Codes: every target has one, none is made up, none is mistyped."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.sr._concepts_dict import concepts

from medreasoner import dicom_report, dicom_seg
from medreasoner.terminology import OWN_SCHEME, UNKNOWN, Code, coded_targets, coding_of

QUESTIONS = Path(__file__).parents[2] / "rl_training" / "questions"
TARGETS = sorted(path.stem.replace("_", " ") for path in QUESTIONS.glob("*.txt") if path.stem != "absent")
# SNOMED CT concepts that DICOM's Part 16 of pydicom 2.4 lacks. 3D Slicer's extension TotalSegmentator uses the six
# vertebrae; FHIR value sets of blood counts use the leukocyte.
BEYOND_PART_16 = {"23215003", "66794005", "14293000", "36470004", "11994002", "49668003", "52501007"}


def codes_in_use() -> list[Code]:
    parts = [(c.category, c.kind, c.modifier, c.region) for c in (*coded_targets().values(), UNKNOWN)]
    own = [value for module in (dicom_seg, dicom_report) for value in vars(module).values() if isinstance(value, Code)]
    return sorted({code for part in parts for code in part if code is not None} | set(own))


def part_16(scheme: str) -> dict[str, str]:
    """Meaning by code value, as pydicom took it from the standard."""
    return {value: entry[0] for names in concepts[scheme].values() for value, entry in names.items()}


def verhoeff_holds(digits: str) -> bool:
    """Check the check digit that ends every SNOMED CT identifier (Verhoeff, 1969: the dihedral group of order 10)."""

    def times(a: int, b: int) -> int:
        turned = (a + b) % 5 if a < 5 else (a - b) % 5
        return turned + 5 * ((a < 5) != (b < 5))

    step, total = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4), 0
    for place, digit in enumerate(reversed(digits)):
        moved = int(digit)
        for _ in range(place % 8):
            moved = step[moved]
        total = times(total, moved)
    return total == 0


@pytest.mark.parametrize("target", TARGETS)
def test_each_target_of_the_embedded_reasoner_has_a_coding(target: str) -> None:
    assert coding_of(target) != UNKNOWN


def test_nothing_is_coded_that_is_no_target() -> None:
    assert sorted(coded_targets()) == TARGETS


@pytest.mark.parametrize("code", [c for c in codes_in_use() if c.scheme == "SCT"], ids=lambda c: c.meaning)
def test_snomed_codes_are_in_the_standard_and_rightly_typed(code: Code) -> None:
    assert verhoeff_holds(code.value)
    assert (code.value in part_16("SCT")) != (code.value in BEYOND_PART_16)


@pytest.mark.parametrize("code", [c for c in codes_in_use() if c.scheme == "DCM"], ids=lambda c: c.meaning)
def test_dicom_codes_mean_what_the_standard_says(code: Code) -> None:
    assert part_16("DCM")[code.value] == code.meaning


SAME_THING = {  # our word, and the one the standard's table has for that code
    "Liver": "Liver structure (body structure)",
    "Kidney": "Kidney structure (body structure)",
    "Spleen": "Splenic structure (body structure)",
    "Myocardium of left ventricle": "Structure of myocardium of left ventricle (body structure)",
    "Inferior vena cava": "Inferior vena cava structure (body structure)",
    "Optic nerve head": "Optic nerve head",
    "Vertebral canal": "Vertebral canal",
    "Left": "Left",
    "Right": "Right",
    "Lesion": "Lesion",
    "Absent": "Absent",
    "Central venous catheter": "Central venous catheter, device (physical object)",
}


@pytest.mark.parametrize(("ours", "standard"), SAME_THING.items())
def test_codes_are_not_swapped(ours: str, standard: str) -> None:
    value = next(code.value for code in codes_in_use() if code.meaning == ours)
    assert part_16("SCT")[value] == standard


OTHER_WORDS = {"49755003", "59820001"}  # Morphologically Abnormal Structure; Blood vessel, as "Endo-vascular"


def test_our_words_are_the_standards() -> None:
    """Some word begins alike in both, so that a code of another organ would show."""
    for code in codes_in_use():
        if code.scheme == "SCT" and code.value not in BEYOND_PART_16 | OTHER_WORDS:
            meaning = part_16("SCT")[code.value].lower()
            words = ["tumor" if word == "Neoplasm" else word.lower() for word in code.meaning.split()]
            assert any(word[:4] in meaning for word in words), code


def test_private_codes_fit_their_value_representations() -> None:
    own = [code for code in codes_in_use() if code.scheme == OWN_SCHEME]
    assert len({code.value for code in own}) == len(own) > 5
    assert all(len(code.value) <= 16 and len(code.meaning) <= 64 for code in codes_in_use())
    assert len(OWN_SCHEME) <= 16 and OWN_SCHEME.startswith("99")  # PS3.3 8.2: reserved for private use


def test_sides_and_unknown_targets() -> None:
    left, right = coding_of("left kidney"), coding_of("right kidney")
    assert left.kind == right.kind
    assert left.modifier is not None and right.modifier is not None
    assert (left.modifier.meaning, right.modifier.meaning) == ("Left", "Right")
    assert coding_of("the flux capacitor") == coding_of("") == UNKNOWN
