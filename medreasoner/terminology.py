"""Codes for what can be asked for: SNOMED CT and DICOM where they have one, this project's own scheme where not.

Every SNOMED CT code below is in DICOM's Part 16 as pydicom carries it, in 3D Slicer's segmentation terminologies, or,
for single lumbar vertebrae and the leucocyte, in published SNOMED CT; none is made up. What they cannot say exactly
gets a code of `OWN_SCHEME`, which PS3.3 8.2 keeps for private use, together with the SNOMED CT category and body
region, so that a viewer that does not know it still shows the right kind of thing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

OWN_SCHEME = "99MEDREASONER"


class Code(NamedTuple):
    """A DICOM code triplet (PS3.3 8.1); `value` at most 16 characters, `meaning` at most 64."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class Coding:
    """How a DICOM segment or report says what was found.

    Attributes:
        category: kind of thing: anatomy, tissue, abnormality, body substance or object.
        kind: the thing itself.
        modifier: side (left, right) or part (anterior, posterior) of it, or None.
        region: the body part it lies in, where `kind` does not say, or None.
    """

    category: Code
    kind: Code
    modifier: Code | None = None
    region: Code | None = None


def _snomed(value: str, meaning: str) -> Code:
    return Code(value, "SCT", meaning)


def _own(value: str, meaning: str) -> Code:
    return Code(value, OWN_SCHEME, meaning)


ANATOMY = _snomed("123037004", "Anatomical Structure")
ABNORMAL = _snomed("49755003", "Morphologically Altered Structure")
TISSUE = _snomed("85756007", "Tissue")
SUBSTANCE = _snomed("91720002", "Body Substance")
OBJECT = _snomed("260787004", "Physical object")
LEFT, RIGHT = _snomed("7771000", "Left"), _snomed("24028007", "Right")
ABSENT = _snomed("272519000", "Absent")
ANTERIOR, POSTERIOR = _snomed("255549009", "Anterior"), _snomed("255551008", "Posterior")

_BRAIN = _snomed("12738006", "Brain")
_BREAST = _snomed("76752008", "Breast")
_COLON = _snomed("71854001", "Colon")
_FOVEA = _snomed("67046006", "Fovea centralis")
_HEAD = _snomed("69536005", "Head")
_HIPPOCAMPUS = _snomed("5366008", "Hippocampus")
_INTRACRANIAL = _snomed("1101003", "Intracranial")
_KIDNEY = _snomed("64033007", "Kidney")
_LUNG = _snomed("39607008", "Lung")
_OPTIC_DISC = _snomed("81016008", "Optic nerve head")
_RETINA = _snomed("5665001", "Retina")
_SPINE = _snomed("421060004", "Vertebral column")

UNKNOWN = Coding(ABNORMAL, _own("FINDING", "What the question asks for"))

_CODINGS = {
    # Anatomy that has a code of its own
    "adrenal gland": Coding(ANATOMY, _snomed("23451007", "Adrenal gland")),
    "airways": Coding(ANATOMY, _snomed("89187006", "Airway structure")),
    "anterior hippocampus": Coding(ANATOMY, _HIPPOCAMPUS, ANTERIOR),
    "aorta": Coding(ANATOMY, _snomed("15825003", "Aorta")),
    "breast": Coding(ANATOMY, _BREAST),
    "cardiomediastinum": Coding(ANATOMY, _snomed("72410000", "Mediastinum")),
    "carotid artery": Coding(ANATOMY, _snomed("69105007", "Carotid Artery")),
    "femur": Coding(ANATOMY, _snomed("71341001", "Femur")),
    "gallbladder": Coding(ANATOMY, _snomed("28231008", "Gallbladder")),
    "hippocampus": Coding(ANATOMY, _HIPPOCAMPUS),
    "inferior vena cava": Coding(ANATOMY, _snomed("64131007", "Inferior vena cava")),
    "left kidney": Coding(ANATOMY, _KIDNEY, LEFT),
    "left lung": Coding(ANATOMY, _LUNG, LEFT),
    "left ventricle cavity": Coding(ANATOMY, _snomed("87878005", "Left Ventricle")),
    "liver": Coding(ANATOMY, _snomed("10200004", "Liver")),
    "myocardium": Coding(ANATOMY, _snomed("49848007", "Myocardium of left ventricle")),
    "oesophagus": Coding(ANATOMY, _snomed("32849002", "Esophagus")),
    "optic disc": Coding(ANATOMY, _OPTIC_DISC),
    "pancreas": Coding(ANATOMY, _snomed("15776009", "Pancreas")),
    "pectoral muscle": Coding(ANATOMY, _snomed("60005003", "Pectoralis major muscle")),
    "posterior hippocampus": Coding(ANATOMY, _HIPPOCAMPUS, POSTERIOR),
    "right kidney": Coding(ANATOMY, _KIDNEY, RIGHT),
    "right lung": Coding(ANATOMY, _LUNG, RIGHT),
    "right ventricle": Coding(ANATOMY, _snomed("53085002", "Right Ventricle")),
    "spinal canal": Coding(ANATOMY, _snomed("61853006", "Vertebral canal")),
    "spleen": Coding(ANATOMY, _snomed("78961009", "Spleen")),
    "stomach": Coding(ANATOMY, _snomed("69695003", "Stomach")),
    "teeth": Coding(ANATOMY, _snomed("38199008", "Tooth")),
    "vertebra": Coding(ANATOMY, _snomed("51282000", "Vertebra")),
    "T12 vertebra": Coding(ANATOMY, _snomed("23215003", "T12 vertebra")),
    "L1 vertebra": Coding(ANATOMY, _snomed("66794005", "L1 vertebra")),
    "L2 vertebra": Coding(ANATOMY, _snomed("14293000", "L2 vertebra")),
    "L3 vertebra": Coding(ANATOMY, _snomed("36470004", "L3 vertebra")),
    "L4 vertebra": Coding(ANATOMY, _snomed("11994002", "L4 vertebra")),
    "L5 vertebra": Coding(ANATOMY, _snomed("49668003", "L5 vertebra")),
    "L1-L2 intervertebral disc": Coding(ANATOMY, _snomed("243920003", "Level of L1/L2 intervertebral disc")),
    "L2-L3 intervertebral disc": Coding(ANATOMY, _snomed("243921004", "Level of L2/L3 intervertebral disc")),
    "L3-L4 intervertebral disc": Coding(ANATOMY, _snomed("243922006", "Level of L3/L4 intervertebral disc")),
    "L4-L5 intervertebral disc": Coding(ANATOMY, _snomed("243923001", "Level of L4/L5 intervertebral disc")),
    "L5-S1 intervertebral disc": Coding(ANATOMY, _snomed("243927000", "Level of L5/S1 intervertebral disc")),
    "white blood cell": Coding(ANATOMY, _snomed("52501007", "Leukocyte")),
    # Abnormalities, substances and objects: what it is, and where it lies
    "brain tumour": Coding(ABNORMAL, _snomed("108369006", "Neoplasm"), region=_BRAIN),
    "breast lesion": Coding(ABNORMAL, _snomed("52988006", "Lesion"), region=_BREAST),
    "breast mass": Coding(ABNORMAL, _snomed("4147007", "Mass"), region=_BREAST),
    "colon polyp": Coding(ABNORMAL, _snomed("68496003", "Polyp of colon"), region=_COLON),
    "consolidation": Coding(ABNORMAL, _own("CONSOLIDATION", "Consolidation of lung"), region=_LUNG),
    "ground-glass opacity": Coding(ABNORMAL, Code("112120", "DCM", "Ground glass opacity"), region=_LUNG),
    "intracranial haemorrhage": Coding(ABNORMAL, _snomed("50960005", "Hemorrhage"), region=_INTRACRANIAL),
    "kidney tumour": Coding(ABNORMAL, _snomed("108369006", "Neoplasm"), region=_KIDNEY),
    "lung infection": Coding(ABNORMAL, _snomed("23583003", "Inflammation"), region=_LUNG),
    "skin lesion": Coding(ABNORMAL, _snomed("95324001", "Skin lesion"), region=_snomed("39937001", "Skin")),
    "pleural effusion": Coding(SUBSTANCE, _snomed("60046008", "Pleural effusion")),
    "retinal fluid": Coding(SUBSTANCE, _snomed("32457005", "Body fluid"), region=_RETINA),
    "central venous line": Coding(OBJECT, _snomed("52124006", "Central venous catheter")),
    "endotracheal tube": Coding(OBJECT, _snomed("26412008", "Endotracheal tube")),
    "nasogastric tube": Coding(OBJECT, _own("NASOGASTRIC_TUBE", "Nasogastric tube")),
    # Anatomy without a code in those tables
    "cell nucleus": Coding(ANATOMY, _own("CELL_NUCLEUS", "Cell nucleus")),
    "colorectal gland": Coding(ANATOMY, _own("COLORECTAL_GLAND", "Gland of colon or rectum"), region=_COLON),
    "fetal head": Coding(ANATOMY, _own("FETAL_HEAD", "Fetal head"), region=_HEAD),
    "fibroglandular tissue": Coding(ANATOMY, _own("FIBROGLANDULAR", "Fibroglandular tissue"), region=_BREAST),
    "foveal avascular zone": Coding(ANATOMY, _own("FAZ", "Foveal avascular zone"), region=_FOVEA),
    "intervertebral disc": Coding(ANATOMY, _own("DISC", "Intervertebral disc"), region=_SPINE),
    "optic cup": Coding(ANATOMY, _own("OPTIC_CUP", "Optic cup"), region=_OPTIC_DISC),
    "portal and splenic vein": Coding(ANATOMY, _own("PORTOSPLENIC", "Portal vein and splenic vein")),
    "retinal nerve fibre layer": Coding(ANATOMY, _own("RNFL", "Retinal nerve fiber layer"), region=_RETINA),
    "retinal vessels": Coding(TISSUE, _snomed("59820001", "Blood vessel"), region=_RETINA),
    "white blood cell nucleus": Coding(ANATOMY, _own("LEUKO_NUCLEUS", "Nucleus of leukocyte")),
}


def coding_of(target: str) -> Coding:
    """Return the coding of a target as the embedded reasoner names it; `UNKNOWN` for any other text, or none."""
    return _CODINGS.get(" ".join(target.split()), UNKNOWN)


def coded_targets() -> dict[str, Coding]:
    """Return every target that has a coding."""
    return dict(_CODINGS)
