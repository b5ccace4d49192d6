"""Every setting of the server: one frozen table, read from the command line, the environment and a YAML file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from medreasoner.contract.errors import MedReasonerError
from medreasoner.expert.catalogue import DEFAULT_EXPERT
from medreasoner.reasoner.catalogue import DEFAULT_REASONER

PREFIX = "MEDREASONER_"
FILE = "settings"  # names the YAML file, on the command line or as MEDREASONER_SETTINGS
_OTHERS = {"MODELS", "SERVER_URL", "SERVER_MODEL", "SERVER_KEY", "SERVER_CARD"}  # variables that medreasoner reads
_MONAI_LABELS_OWN = {"server_mode"}  # MONAI Label's start-up adds this key
_ASYMMETRIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")


class SettingsError(MedReasonerError):
    """A setting is unknown or has a value that cannot be used."""


def _knob(default: Any, about: str, unit: str = "", at_least: float | None = None, secret: bool = False) -> Any:
    """Describe one setting; README shows the same text, and a test compares them."""
    return field(default=default, repr=not secret, metadata={"about": about, "unit": unit, "at_least": at_least})


@dataclass(frozen=True)
class Settings:
    """What the server can be told. A name here is the key on the command line, in YAML and, with prefix, outside.

    Where a name is given more than once, the command line wins over the environment, the environment over the YAML
    file, and the file over the default. Lists are written with commas.
    """

    reasoner: str = _knob(DEFAULT_REASONER, "embedded, server, the name of a folder of models, or a folder's path")
    expert: str = _knob(DEFAULT_EXPERT, "segmentation expert; `medreasoner models` lists them")
    volume_expert: str = _knob("", "expert that carries a mask through a volume; empty: the same as expert")
    registry: str = _knob("", "folder of the checkpoints trained here; empty: local, in the folder of models")
    training_config: str = _knob("", "YAML file of the training; empty: rl_training/configs/local.yaml")
    training_nice: int = _knob(10, "how far the training gives way to answers: 0, not at all, to 19", at_least=0)
    scoring: bool = _knob(False, "score unlabelled images in idle time, for the strategies that go by it")
    worklist: str = _knob("", "YAML file of what to ask when scoring; example: the one that ships; empty: as labelled")
    score_samples: int = _knob(3, "answers drawn to each question when scoring", "answers", at_least=2)
    score_questions: int = _knob(3, "most questions asked about one image when scoring", "questions", at_least=1)
    device: str = _knob("", "cpu or cuda; empty: a GPU where there is one")
    cached_volumes: int = _knob(4, "opened volumes kept in memory", "volumes", at_least=1)
    queue_length: int = _knob(16, "questions that may wait for one model; beyond it the answer is 503", "questions", 1)
    upload_limit: int = _knob(512, "largest uploaded volume or label", "MB", 1)
    body_wait: float = _knob(60.0, "longest silence within an upload before it is given up", "s", 0.1)
    keep_session: int = _knob(60, "how long an uploaded volume is kept after its last use", "minutes", 2)
    tokens: str = _knob("", "file of static bearer tokens; empty: none")
    oidc_issuer: str = _knob("", "issuer of JSON web tokens, such as a Keycloak realm's URL; empty: none are taken")
    oidc_audience: str = _knob("", "audience that a token must name; required with oidc_issuer")
    oidc_algorithms: tuple[str, ...] = _knob(("RS256", "ES256"), "signatures that are accepted; never HS256 or none")
    oidc_jwks: str = _knob("", "URL of the issuer's public keys; empty: what the issuer's discovery document says")
    oidc_roles: str = _knob("realm_access.roles", "claim that lists the roles; dots lead into objects")
    oidc_role_prefix: str = _knob("medreasoner-", "what comes before reader, annotator and admin in that claim")
    open_access: bool = _knob(False, "admit other machines without tokens; for a closed test network only")
    cors_origins: tuple[str, ...] = _knob((), "origins whose web pages may call the server, such as https://ohif.local")
    audit_log: str = _knob("", "file that records who asked what and what was answered; empty: none is kept")
    dicomweb_user: str = _knob("", "user name for the DICOMweb archive")
    dicomweb_password: str = _knob("", "password for the DICOMweb archive", secret=True)
    dicomweb_token: str = _knob("", "bearer token for the DICOMweb archive", secret=True)
    dicomweb_modalities: tuple[str, ...] = _knob(
        ("CT", "MR", "CR", "DX", "MG", "US"), "modalities that the archive's series are listed for"
    )
    dicomweb_timeout: float = _knob(30.0, "longest wait for the DICOMweb archive", "s", 0.1)
    dicomweb_cache: int = _knob(4096, "series kept on disk for another question", "MB", 1)

    def __post_init__(self) -> None:
        if self.oidc_issuer and not self.oidc_audience:
            raise SettingsError(
                "oidc_issuer is set without oidc_audience",
                "name the audience that tokens for this server carry: without it any token of the issuer would do",
            )
        weak = [name for name in self.oidc_algorithms if name not in _ASYMMETRIC]
        if weak or not self.oidc_algorithms:
            raise SettingsError(
                f"oidc_algorithms may not hold {', '.join(weak) or 'nothing'}", f"use some of {', '.join(_ASYMMETRIC)}"
            )
        if "*" in self.cors_origins:
            raise SettingsError("cors_origins may not be *", "list the origins of the web pages that may call")

    @classmethod
    def load(cls, given: Mapping[str, Any] | None = None, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the settings.

        Args:
            given: from the command line (``--conf``), as text.
            environment: variables; those that begin with ``MEDREASONER_`` count.

        Raises:
            SettingsError: an unknown name, a value of the wrong kind, a file that cannot be read.
        """
        line = {key: value for key, value in (given or {}).items() if key not in _MONAI_LABELS_OWN}
        outside = {
            key[len(PREFIX) :].lower(): value
            for key, value in environment.items()
            if key.startswith(PREFIX) and key[len(PREFIX) :] not in _OTHERS
        }
        path = line.pop(FILE, None) or outside.pop(FILE, None)
        outside.pop(FILE, None)
        sources = (("settings file", _read(Path(path)) if path else {}), ("environment", outside), ("--conf", line))
        known = {f.name: f for f in fields(cls)}
        values: dict[str, Any] = {}
        for source, found in sources:
            for key, value in found.items():
                if key not in known:
                    raise SettingsError(f"unknown setting {str(key)[:60]!r} ({source})", f"known: {', '.join(known)}")
                values[key] = _typed(known[key], value)
        return cls(**values)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the settings file {path} cannot be read: {error}", "name a readable YAML file") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}," if mark else f"{path}"
        # Neither the error nor where it came from: both quote the line, and that may hold a password.
        raise SettingsError(
            f"the settings file {where} is not YAML", "correct it; values that hold marks such as ! or * go in quotes"
        ) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(f"the settings file {path} is not a table", "write lines such as  expert: litemedsam")
    return content


def _typed(knob: Field[Any], value: Any) -> Any:
    """Turn the text of a command line or a variable, or a YAML value, into the setting's own type."""
    kind, lowest = type(knob.default), knob.metadata["at_least"]
    try:
        if kind is bool:
            typed: Any = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[
                str(value).strip().lower()
            ]
        elif kind is tuple:
            parts = value if isinstance(value, list) else str(value).split(",")
            typed = tuple(str(part).strip() for part in parts if str(part).strip())
        elif kind is str:
            typed = "" if value is None else str(value).strip()
        else:
            typed = kind(str(value).strip())
    except (KeyError, ValueError) as error:
        raise _unusable(knob, value, f"write {_wish(knob)}") from error
    if lowest is not None and not lowest <= typed < float("inf"):
        raise _unusable(knob, value, f"write {_wish(knob)} of at least {lowest}")
    return typed


def _wish(knob: Field[Any]) -> str:
    wishes = {bool: "true or false", int: "a whole number", float: "a number"}
    return wishes.get(type(knob.default), "text") + (f" ({knob.metadata['unit']})" if knob.metadata["unit"] else "")


def _unusable(knob: Field[Any], value: Any, hint: str) -> SettingsError:
    shown = str(value)[:60] if knob.repr else "its value"
    return SettingsError(f"the setting {knob.name} cannot be {shown!r}", hint)
