"""Settings: which source wins, what is refused, and that the documentation's table is the code's."""

import re
import traceback
from dataclasses import fields
from pathlib import Path

import pytest

from monailabel_app.lib.settings import Settings, SettingsError

README = Path(__file__).parents[2] / "README.md"


def test_the_command_line_wins_over_the_environment_over_the_file_over_the_default(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("expert: sam-vit-b\nqueue_length: 3\ndevice: cuda\ncors_origins: [https://a.example]\n")
    environment = {"MEDREASONER_EXPERT": "medsam2", "MEDREASONER_QUEUE_LENGTH": "5", "HOME": "/"}
    settings = Settings.load({"settings": str(file), "expert": "sam2"}, environment)
    assert (settings.expert, settings.queue_length, settings.device) == ("sam2", 5, "cuda")
    assert settings.cors_origins == ("https://a.example",)
    assert settings.reasoner == "embedded"
    named_outside = Settings.load({}, {"MEDREASONER_SETTINGS": str(file)})
    assert (named_outside.expert, named_outside.queue_length) == ("sam-vit-b", 3)


def test_variables_of_the_core_and_keys_of_monai_label_are_no_settings_of_ours():
    environment = {"MEDREASONER_MODELS": "/models", "MEDREASONER_SERVER_URL": "http://localhost:8000/v1"}
    assert Settings.load({"server_mode": "true"}, environment) == Settings()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"colour": "red"}, "unknown setting 'colour' (--conf)"),
        ({"queue_length": "many"}, "queue_length cannot be 'many'"),
        ({"queue_length": "2.5"}, "queue_length cannot be '2.5'"),
        ({"queue_length": "0"}, "queue_length cannot be '0'"),
        ({"body_wait": "nan"}, "body_wait cannot be 'nan'"),  # compares false with everything
        ({"body_wait": "inf"}, "body_wait cannot be 'inf'"),
        ({"open_access": "maybe"}, "open_access cannot be 'maybe'"),
        ({"cors_origins": "*"}, "cors_origins may not be *"),  # with bearer tokens that would be everyone
        (
            {"oidc_algorithms": "RS256,HS256"},
            "oidc_algorithms may not hold HS256",
        ),  # the public key would be the secret
        ({"oidc_algorithms": "none"}, "oidc_algorithms may not hold none"),
        ({"oidc_algorithms": ""}, "oidc_algorithms may not hold nothing"),
        ({"oidc_issuer": "https://id.example"}, "oidc_issuer is set without oidc_audience"),
        ({"settings": "missing.yaml"}, "missing.yaml cannot be read"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_name(given, said):
    with pytest.raises(SettingsError) as caught:
        Settings.load(given, {})
    assert said in caught.value.what
    assert caught.value.hint


@pytest.mark.parametrize("text", ["- a list", "a: [", "\x00"])
def test_a_settings_file_that_is_no_table_is_refused(tmp_path, text):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=r"settings\.yaml"):
        Settings.load({"settings": str(file)}, {})


def test_secrets_are_never_shown():
    settings = Settings.load({"dicomweb_password": "hunter2", "dicomweb_token": "letmein"}, {})
    assert "hunter2" not in repr(settings)
    assert "letmein" not in repr(settings)
    assert settings.dicomweb_password == "hunter2"


@pytest.mark.parametrize("value", ['"hunter2', "!hunter2", "*hunter2", "a: hunter2", "%hunter2", "[hunter2"])
def test_a_damaged_settings_file_is_told_by_its_line_and_shows_no_secret(tmp_path, value):
    """YAML's own message quotes the line, and a log keeps the errors that an error came from."""
    (tmp_path / "settings.yaml").write_text(f"expert: sam2\ndicomweb_password: {value}\n")
    with pytest.raises(SettingsError, match=r"settings\.yaml, line [23]") as caught:
        Settings.load({"settings": str(tmp_path / "settings.yaml")}, {})
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_the_documented_table_is_the_code_s():
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.*?) \|$", README.read_text(encoding="utf-8"), re.MULTILINE)
    expected = [(f.name, _shown(f.default), f.metadata["unit"], f.metadata["about"]) for f in fields(Settings)]
    assert rows == expected


def _shown(default):
    if isinstance(default, tuple):
        return ", ".join(default)
    return str(default).lower() if isinstance(default, bool) else str(default)
