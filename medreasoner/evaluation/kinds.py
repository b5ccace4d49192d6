"""What kind of image each source holds, and which kinds cannot show which targets."""

from __future__ import annotations

from typing import Any

_BY_SOURCE = {
    "btcv": "abdominal CT",
    "kits19": "abdominal CT",
    "acdc": "cardiac MRI",
    "msd_hippocampus": "hippocampus MRI",
    "brisc2025": "brain MRI",
    "pyradiomics_brain": "brain MRI",
    "spider_spine": "lumbar spine MRI",
    "covid_cxr_gb": "chest X-ray",
    "jsrt_lung": "chest X-ray",
    "knee_femur": "knee X-ray",
    "dental_panoramic": "panoramic dental X-ray",
    "cvc_clinicdb": "colonoscopy",
    "etis_polyp": "colonoscopy",
    "wbc": "blood smear",
    "ph2": "dermoscopy image",
    "ham10000": "dermoscopy image",
    "ddsm_tissue": "mammogram",
    "inbreast": "mammogram",
    "cdd_cesm": "mammogram",
    "busi": "breast ultrasound",
    "stu_breast": "breast ultrasound",
    "bus_bra": "breast ultrasound",
    "drishti_gs": "fundus photograph",
    "smdg": "fundus photograph",
    "drive": "fundus photograph",
    "chase_db1": "fundus photograph",
    "octa_onh": "OCT angiogram",
    "faz_octa": "OCT angiogram",
    "zeiss_onh_oct": "retinal OCT",
    "ct_ich": "head CT",
    "hc18_fetal": "fetal ultrasound",
    "carotid_us": "neck ultrasound",
    "dsb2018_he": "histology slide",
    "glas": "histology slide",
    "ebhi_seg": "histology slide",
}
_BY_MODALITY = {
    "CT": "CT image",
    "MRI": "MRI",
    "X-ray": "X-ray",
    "OCT": "OCT image",
    "ultrasound": "ultrasound image",
    "pathology": "histology slide",
    "fundus": "fundus photograph",
}
BODY_PART = {
    "abdominal CT": "trunk",
    "lumbar spine MRI": "trunk",
    "cardiac MRI": "trunk",
    "chest X-ray": "trunk",
    "mammogram": "breast",
    "breast ultrasound": "breast",
    "hippocampus MRI": "head",
    "brain MRI": "head",
    "head CT": "head",
    "panoramic dental X-ray": "jaw",
    "knee X-ray": "knee",
    "colonoscopy": "bowel inside",
    "blood smear": "microscope",
    "histology slide": "microscope",
    "dermoscopy image": "skin",
    "fundus photograph": "eye",
    "OCT angiogram": "eye",
    "retinal OCT": "eye",
    "fetal ultrasound": "fetus",
    "neck ultrasound": "neck",
}
KINDS_BY_MODALITY = {  # DICOM modality codes (PS3.3 C.7.3.1.1.1)
    "CT": ("abdominal CT", "head CT"),
    "MR": ("cardiac MRI", "hippocampus MRI", "brain MRI", "lumbar spine MRI"),
    "CR": ("chest X-ray", "knee X-ray"),
    "DX": ("chest X-ray", "knee X-ray"),
    "PX": ("panoramic dental X-ray",),
    "MG": ("mammogram",),
    "US": ("breast ultrasound", "fetal ultrasound", "neck ultrasound"),
    "ES": ("colonoscopy",),
    "OP": ("fundus photograph",),
    "OPT": ("retinal OCT", "OCT angiogram"),
    "DMS": ("dermoscopy image",),
    "SM": ("blood smear", "histology slide"),
}
_CODES = {  # umrg-mini's words for a modality; an X-ray may be a dental one
    "CT": "CT",
    "MRI": "MR",
    "X-ray": "DX",
    "mammography": "MG",
    "ultrasound": "US",
    "endoscopy": "ES",
    "fundus": "OP",
    "OCT": "OPT",
    "dermoscopy": "DMS",
    "pathology": "SM",
}
_WORDS = {code: word for word, code in _CODES.items()} | {"CR": "X-ray", "PX": "X-ray"}
ABSENT_KINDS = {  # the kinds that umrg-mini's absent questions name
    "X-ray chest": ("chest X-ray",),
    "CT abdomen": ("abdominal CT",),
    "MRI brain": ("hippocampus MRI", "brain MRI"),
    "MRI cardiac": ("cardiac MRI",),
    "MRI lumbar": ("lumbar spine MRI",),
    "endoscopy": ("colonoscopy",),
    "fundus": ("fundus photograph",),
    "dermoscopy": ("dermoscopy image",),
    "mammography": ("mammogram",),
    "ultrasound breast": ("breast ultrasound",),
    "blood smear": ("blood smear",),
}
_HEADING_KINDS = {  # the words of questions/absent.txt headings
    "chest x-ray": ("chest X-ray",),
    "dental x-ray": ("panoramic dental X-ray",),
    "knee x-ray": ("knee X-ray",),
    "abdominal ct": ("abdominal CT",),
    "head ct": ("head CT",),
    "cardiac mri": ("cardiac MRI",),
    "brain mri": ("brain MRI", "hippocampus MRI"),
    "lumbar mri": ("lumbar spine MRI",),
    "mammography": ("mammogram",),
    "breast ultrasound": ("breast ultrasound",),
    "carotid ultrasound": ("neck ultrasound",),
    "fetal ultrasound": ("fetal ultrasound",),
    "endoscopy": ("colonoscopy",),
    "dermoscopy": ("dermoscopy image",),
    "fundus": ("fundus photograph",),
    "oct": ("OCT angiogram", "retinal OCT"),
    "pathology": ("histology slide",),
    "blood smear": ("blood smear",),
}


def kind_of(sample: dict[str, Any]) -> str:
    """Name the kind of image of a sample, such as "chest X-ray": its own word, else by its source or modality."""
    if own := sample.get("kind"):
        return str(own)
    return _BY_SOURCE.get(sample["source"]) or _BY_MODALITY.get(sample["modality"], f"{sample['modality']} image")


def modality_word(code: str) -> str:
    """Return umrg-mini's word for a DICOM modality code: the code itself where it has none, "medical" without one."""
    return _WORDS.get(code, code) or "medical"


def dicom_modality(sample: dict[str, Any]) -> str:
    """Return the DICOM modality code that a file of this sample carries, or would carry."""
    if code := sample.get("modality_code"):
        return str(code)
    return "PX" if kind_of(sample) == "panoramic dental X-ray" else _CODES.get(sample["modality"], "")


def cannot_show(kind: str, target_kinds: set[str]) -> bool:
    """Say whether an image of `kind` surely cannot show a target seen on `target_kinds`: no body part in common.

    Kinds without a known body part (mixed sources) never count as sure, and neighbours that overlap (breast and
    trunk) count as possible.
    """
    parts = {BODY_PART.get(k) for k in target_kinds}
    mine = BODY_PART.get(kind)
    if mine is None or None in parts:
        return False
    near = {mine} | ({"trunk", "breast"} if mine in ("trunk", "breast") else set())
    near |= {"trunk", "neck"} if mine == "neck" else set()
    near |= {"head", "jaw"} if mine in ("head", "jaw") else set()
    return not (near & parts)


def kinds_that_may_show(heading: str) -> set[str]:
    """Read the part after the bar of a heading in questions/absent.txt."""
    words = heading.partition("|")[2].split(",")
    return {kind for word in words for kind in _HEADING_KINDS.get(word.strip().lower(), ())}
