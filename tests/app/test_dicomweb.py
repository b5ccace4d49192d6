"""Studies in a real Orthanc: listed, fetched, labelled; and clear words when the archive does not play along."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pydicom_seg
import pytest
import requests
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from medreasoner.contract.label import LabelRecord
from medreasoner.imaging import open_image, write_mask
from monailabel_app.gateway.errors import kind_and_status
from monailabel_app.lib.datastore import open_datastore
from monailabel_app.lib.datastore.archive import Archive, ArchivedSeries, ArchiveError
from monailabel_app.lib.datastore.dicom_datastore import UnknownSeries
from monailabel_app.lib.datastore.dicomweb import DicomWebDatastore
from monailabel_app.lib.datastore.series_cache import SeriesCache
from monailabel_app.lib.settings import Settings
from tests.app.orthanc import PASSWORD, USER, orthanc
from tests.app.server import free_port
from tests.dicom_files import ALIGNED, enhanced, projection, series

SETTINGS = Settings(dicomweb_user=USER, dicomweb_password=PASSWORD, dicomweb_timeout=10.0)
RECORD = LabelRecord(
    "Which organ filters the blood?",
    absent=False,
    axis="stored",
    slice_index=0,
    target="left kidney",
    box=[4.0, 6.0, 21.0, 17.0],
    points=[[8.5, 9.0], [15.0, 12.5]],
    reasoner={"name": "embedded", "sha256": "ab" * 32},
)
KINDS = ["CT", "MR", "MR single", "MR enhanced", "CR", "DX", "MG", "US", "US film"]


def make_studies(folder: Path) -> dict[str, list[Path]]:
    """One series of each kind."""
    return {
        "CT": sorted(series(folder / "ct").iterdir()),
        "MR": sorted(series(folder / "mr", "MR_small.dcm", ALIGNED).iterdir()),
        "MR single": sorted(series(folder / "single", "MR_small.dcm", count=1).iterdir()),
        "MR enhanced": [enhanced(folder / "enhanced")],
        "CR": [projection(folder, "CR")],
        "DX": [projection(folder, "DX")],
        "MG": [projection(folder, "MG")],
        "US": [projection(folder / "single", "US")],
        "US film": [projection(folder / "film", "US", frames=3)],
        "SEG": [Path(get_testdata_file("liver_1frame.dcm"))],
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    return make_studies(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, files: dict[str, list[Path]]) -> Iterator[str]:
    """An archive that holds the files."""
    with orthanc(tmp_path_factory.mktemp("orthanc")) as found:
        archive = Archive(found, SETTINGS)
        for paths in files.values():
            archive.store([dcmread(path) for path in paths])
        yield found


@pytest.fixture
def store(url: str, tmp_path: Path) -> DicomWebDatastore:
    return DicomWebDatastore(url, SETTINGS, tmp_path / "home")


def uid_of(paths: list[Path]) -> str:
    return str(dcmread(paths[0]).SeriesInstanceUID)


def drawn(store: DicomWebDatastore, image_id: str, path: Path) -> Path:
    """A mask on the middle slice, as the model writes it."""
    image = open_image(Path(store.get_image_uri(image_id)))
    picture = image.picture("stored")
    mask = np.zeros((picture.height, picture.width), bool)
    mask[6:17, 4:21] = True
    return write_mask(mask, picture, image, path)


def stored_since(url: str, modality: str, known: set[str]) -> list[Dataset]:
    """New instances, fetched from Orthanc's own interface and not through our client."""
    rest, auth = url.removesuffix("/dicom-web"), (USER, PASSWORD)
    query = {"Level": "Instance", "Query": {"Modality": modality}}
    ids = requests.post(f"{rest}/tools/find", json=query, auth=auth, timeout=10).json()
    new = [one for one in ids if one not in known]
    known.update(new)
    return [
        dcmread(BytesIO(requests.get(f"{rest}/instances/{one}/file", auth=auth, timeout=10).content)) for one in new
    ]


def test_image_series_of_the_wanted_modalities_are_listed(
    store: DicomWebDatastore, files: dict[str, list[Path]], url: str, tmp_path: Path
) -> None:
    assert store.list_images() == sorted(uid_of(files[kind]) for kind in KINDS)
    only_mr = DicomWebDatastore(url, replace(SETTINGS, dicomweb_modalities=("MR",)), tmp_path / "mr")
    assert only_mr.list_images() == sorted(uid_of(files[kind]) for kind in KINDS if kind.startswith("MR"))
    everything = DicomWebDatastore(url, replace(SETTINGS, dicomweb_modalities=()), tmp_path / "all")
    assert everything.list_images() == store.list_images()  # no SEG, though nothing was filtered
    with pytest.raises(UnknownSeries, match="no images but SEG"):
        store.get_image_uri(uid_of(files["SEG"]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_series_comes_as_its_own_files(store: DicomWebDatastore, files: dict[str, list[Path]], kind: str) -> None:
    image_id = uid_of(files[kind])
    fetched = open_image(Path(store.get_image_uri(image_id)))
    whole = files[kind][0] if len(files[kind]) == 1 else files[kind][0].parent
    ours = open_image(whole)
    np.testing.assert_array_equal(fetched.values, ours.values)
    assert (fetched.default_window, fetched.modality) == (ours.default_window, ours.modality)
    if ours.index_to_lps is not None:
        np.testing.assert_allclose(fetched.index_to_lps, ours.index_to_lps)
    info = store.get_image_info(image_id)
    assert (info["Modality"], info["instances"]) == (ours.modality, len(files[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_final_label_goes_into_the_archive(
    store: DicomWebDatastore, files: dict[str, list[Path]], url: str, tmp_path: Path, kind: str
) -> None:
    known: set[str] = set()
    for modality in ("SEG", "SR"):
        stored_since(url, modality, known)
    image_id = uid_of(files[kind])
    mask = drawn(store, image_id, tmp_path / "mask.nrrd")
    image = open_image(Path(store.get_image_uri(image_id)))
    k = image.shape[2] // 2
    record = replace(RECORD, slice_index=k)
    store.save_label(image_id, str(mask), "final", {"medreasoner": asdict(record)})

    (seg,), (report,) = stored_since(url, "SEG", known), stored_since(url, "SR", known)
    wanted = open_image(mask).values[:, :, k].T
    if image.index_to_lps is not None:
        np.testing.assert_array_equal(pydicom_seg.SegmentReader().read(seg).segment_data(1)[0], wanted)
        place = seg.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(
            np.asarray(place, float), image.index_to_lps @ [0, 0, k, 1] @ np.eye(4, 3), atol=1e-3
        )
    else:
        np.testing.assert_array_equal(seg.pixel_array, wanted)
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == image_id
    assert seg.StudyInstanceUID == report.StudyInstanceUID == dcmread(files[kind][0]).StudyInstanceUID
    assert seg.SegmentSequence[0].TrackingUID in str(report)


def test_labels_are_seen_at_once_here_and_within_seconds_by_other_servers(
    store: DicomWebDatastore, url: str, tmp_path: Path
) -> None:
    """MONAI Label's own datastore proposes a labelled series for two hours more."""
    image_id = store.add_image("x", str(projection(tmp_path, "CR")), {})
    other = DicomWebDatastore(url, SETTINGS, tmp_path / "other")
    for one in (store, other):
        assert image_id in one.get_unlabeled_images()
    mask = drawn(store, image_id, tmp_path / "mask.nrrd")
    store.save_label(image_id, str(mask), "original", {"medreasoner": asdict(RECORD)})
    assert image_id in store.get_unlabeled_images()  # not final, and not sent
    store.save_label(image_id, str(mask), "final", {"medreasoner": asdict(RECORD)})
    other.refresh()  # as seconds do
    for one in (store, other):
        assert image_id not in one.get_unlabeled_images()
        assert image_id in one.get_labeled_images()
    again = DicomWebDatastore(url, SETTINGS, tmp_path / "home")
    assert again.get_labels_by_image_id(image_id) == {"final": image_id, "original": image_id}


def test_a_segmentation_is_asked_about_once_and_not_by_every_server(
    store: DicomWebDatastore, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive of thousands would keep each new server from starting for minutes."""
    told = store.labelled("final")
    assert told
    kept = tmp_path / "home" / "segmentations.json"

    def ask(*_: object) -> None:
        raise AssertionError("the archive was asked")

    with monkeypatch.context() as patched:
        patched.setattr("dicomweb_client.DICOMwebClient.retrieve_series_metadata", ask)
        assert DicomWebDatastore(url, SETTINGS, tmp_path / "home").labelled("final") == told
    for damage in (b"", b"[]", b'{"1.2": 3}', b"\xff"):
        kept.write_bytes(damage)
        assert DicomWebDatastore(url, SETTINGS, tmp_path / "home").labelled("final") == told
        assert b"[" in kept.read_bytes()


def test_a_segmentation_that_cannot_be_read_does_not_end_active_learning(
    store: DicomWebDatastore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its file is gone from the archive's disk, say: it counts for nothing, and is not asked about again and again."""
    asked = []

    def gone(_: object, _study: str, series: str) -> None:
        asked.append(series)
        raise requests.HTTPError("Not Found", response=SimpleNamespace(status_code=404))

    monkeypatch.setattr("dicomweb_client.DICOMwebClient.retrieve_series_metadata", gone)
    assert store.labelled("final") == set()
    assert "status 404" in caplog.text
    store.refresh()
    assert store.labelled("final") == set()
    assert sorted(set(asked)) == sorted(asked) != []


def test_segmentations_are_asked_about_several_at_once_and_what_was_learnt_is_kept(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first start on an archive of thousands; then the archive goes away in the middle of them."""
    found = [ArchivedSeries(f"1.2.{n}", "1.1", "SEG", "", "", 1) for n in range(40)]
    monkeypatch.setattr(Archive, "_search", lambda *_: found)
    meeting = threading.Barrier(4, timeout=30)
    broken = threading.Event()

    def answer(_: object, _study: str, series: str) -> list[dict[str, object]]:
        number = int(series.rpartition(".")[2])
        if number < 4:
            meeting.wait()
        if number > 20 and not broken.is_set():
            raise requests.ConnectionError
        reference = {"0020000E": {"vr": "UI", "Value": [f"1.3.{number}"]}}
        return [{"00081115": {"vr": "SQ", "Value": [reference]}}]

    monkeypatch.setattr("dicomweb_client.DICOMwebClient.retrieve_series_metadata", answer)
    store = DicomWebDatastore(url, SETTINGS, tmp_path / "home")
    with pytest.raises(ArchiveError, match="cannot be reached"):
        store.labelled("final")
    broken.set()
    assert len(json.loads((tmp_path / "home" / "segmentations.json").read_text())) == 21
    assert store.labelled("final") == {f"1.3.{number}" for number in range(40)}


def test_what_was_segmented_is_not_asked_for_again_within_seconds(
    store: DicomWebDatastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orthanc takes a millisecond or more for each Segmentation that it lists, and one question asks several times."""
    told = store.labelled("final")
    monkeypatch.setattr(Archive, "_search", None)
    assert store.labelled("final") == told


def test_a_study_stands_for_its_patient_and_notes_stay_on_this_machine(
    store: DicomWebDatastore, files: dict[str, list[Path]], url: str, tmp_path: Path
) -> None:
    image = uid_of(files[KINDS[0]])
    assert store.subject_of(image) == dcmread(files[KINDS[0]][0]).StudyInstanceUID
    store.update_image_info(image, {"x": 1})
    again = DicomWebDatastore(url, SETTINGS, tmp_path / "home")
    assert again.notes() == {image: {"x": 1}}
    assert again.get_image_info(image)["x"] == 1


def test_a_series_that_grows_is_fetched_again(url: str, tmp_path: Path) -> None:
    slices = sorted(series(tmp_path / "growing", count=4).iterdir(), reverse=True)
    archive = Archive(url, SETTINGS)
    archive.store([dcmread(path) for path in slices[:3]])
    store = DicomWebDatastore(url, SETTINGS, tmp_path / "home")
    image_id = uid_of(slices)
    assert len(list(Path(store.get_image_uri(image_id)).iterdir())) == 3
    archive.store([dcmread(slices[3])])
    store.refresh()
    assert len(list(Path(store.get_image_uri(image_id)).iterdir())) == 4


@pytest.mark.parametrize("image_id", ["1.2.3.4", "../../etc", "", "1.2.3/../..", "1.2.*"])
def test_unknown_series(store: DicomWebDatastore, image_id: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownSeries, match="no series"):
        store.get_image_uri(image_id)
    assert list((tmp_path / "home" / "series").iterdir()) == []


def test_a_wrong_password(url: str, tmp_path: Path) -> None:
    store = DicomWebDatastore(url, replace(SETTINGS, dicomweb_password="wrong"), tmp_path)
    with pytest.raises(ArchiveError, match="status 401") as caught:
        store.list_images()
    assert "dicomweb_password" in caught.value.hint and "wrong" not in str(caught.value)


def test_an_archive_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    store = open_datastore(f"http://127.0.0.1:{free_port()}/dicom-web/", SETTINGS)
    with pytest.raises(ArchiveError, match="cannot be reached") as caught:
        store.list_images()
    assert kind_and_status(caught.value) == ("ArchiveError", 502)
    assert store.status()["unreachable"] == caught.value.what  # and the server starts all the same


class _Odd(BaseHTTPRequestHandler):
    """Not an archive: says nothing for a while, or something else, as its address asks; notes who asked."""

    asked_by: str | None = None
    replies: ClassVar = {
        "nameless": b'[{"00080060": {"vr": "CS", "Value": ["CT"]}}]',
        "texts": b'["1.2.3"]',
        "numbers": b"[1, 2]",
        "object": b'{"error": "denied"}',
    }

    def do_GET(self) -> None:
        type(self).asked_by = self.headers.get("Authorization")
        if self.path.startswith("/silent"):
            self.server.silence.wait(5)  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Type", "application/dicom+json")
        self.end_headers()
        self.wfile.write(self.replies.get(self.path.split("/")[1], b"<html>welcome</html>"))

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def odd_server() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Odd)
    server.silence = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.silence.set()  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_archive_that_does_not_answer_in_time(odd_server: str, tmp_path: Path) -> None:
    settings = replace(SETTINGS, dicomweb_timeout=0.2)
    with pytest.raises(ArchiveError, match="in time"):
        DicomWebDatastore(f"{odd_server}/silent", settings, tmp_path).list_images()


def test_all_who_wait_for_a_hung_archive_wait_for_one_time_out(odd_server: str, tmp_path: Path) -> None:
    """One after the other, ten colleagues would hold the server's threads for five minutes."""
    store = DicomWebDatastore(f"{odd_server}/silent", replace(SETTINGS, dicomweb_timeout=1.0), tmp_path)
    began = time.monotonic()
    with ThreadPoolExecutor(8) as colleagues:
        outcomes = [colleagues.submit(store.list_images) for _ in range(8)]
    assert all("in time" in str(outcome.exception()) for outcome in outcomes)
    assert time.monotonic() - began < 5


def test_something_that_is_no_archive_gets_the_token_and_a_clear_error(odd_server: str, tmp_path: Path) -> None:
    settings = Settings(dicomweb_token="abc")
    with pytest.raises(ArchiveError, match="cannot be read"):
        DicomWebDatastore(odd_server, settings, tmp_path).list_images()
    assert _Odd.asked_by == "Bearer abc"


@pytest.mark.parametrize("what", _Odd.replies)
def test_an_archive_whose_list_lacks_what_it_must_hold(odd_server: str, tmp_path: Path, what: str) -> None:
    with pytest.raises(ArchiveError, match="cannot be read"):
        DicomWebDatastore(f"{odd_server}/{what}", SETTINGS, tmp_path).list_images()


def write(folder: Path, size: int = 1000) -> None:
    (folder / "1.dcm").write_bytes(b"x" * size)


def test_the_cache_keeps_to_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monailabel_app.lib.datastore.series_cache.IN_USE_SECONDS", 0.0)
    cache = SeriesCache(tmp_path, 2500)
    for uid in ("1.1", "1.2", "1.1", "1.3"):
        cache.get(uid, 1, write)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.1", "1.3"]  # 1.2 was used longest ago


def test_what_is_in_use_stays_beyond_the_limit(tmp_path: Path) -> None:
    cache = SeriesCache(tmp_path, 10)
    paths = [cache.get(uid, 1, write) for uid in ("1.1", "1.2")]
    assert all(path.exists() for path in paths)


def test_what_a_thread_is_about_to_get_is_not_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread fetches a series anew that has grown, while another makes room: the old files serve until then."""
    monkeypatch.setattr("monailabel_app.lib.datastore.series_cache.IN_USE_SECONDS", 0.0)
    cache = SeriesCache(tmp_path, 1500)
    cache.get("1.1", 1, write)
    fetching, go_on = threading.Event(), threading.Event()

    def grown(folder: Path) -> None:
        fetching.set()
        assert go_on.wait(10)
        write(folder)

    thread = threading.Thread(target=cache.get, args=("1.1", 2, grown))
    thread.start()
    assert fetching.wait(10)
    cache.get("1.2", 1, write)
    assert (tmp_path / "1.1" / "1.dcm").exists()
    go_on.set()
    thread.join()
    assert (
        len([path for path in tmp_path.iterdir() if path.name.startswith("1.")]) == 1
    )  # now there is no room for both


def test_a_server_that_dies_while_it_makes_room_leaves_no_part_of_a_series(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monailabel_app.lib.datastore.series_cache.IN_USE_SECONDS", 0.0)
    cache = SeriesCache(tmp_path, 1500)
    cache.get("1.1", None, write)

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", dies)
        with pytest.raises(KeyboardInterrupt):
            cache.get("1.2", None, write)
    assert not (tmp_path / "1.1").exists()
    SeriesCache(tmp_path, 1500)  # the next server
    assert [path.name for path in tmp_path.iterdir()] == ["1.2"]


def test_a_fetch_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def broken(folder: Path) -> None:
        write(folder)
        raise ArchiveError("gone", "ask again")

    cache = SeriesCache(tmp_path, 2500)
    with pytest.raises(ArchiveError):
        cache.get("1.1", 2, broken)
    assert list(tmp_path.iterdir()) == []


def test_threads_that_want_one_series_share_one_fetch(tmp_path: Path) -> None:
    fetches: list[Path] = []
    go = threading.Barrier(4)

    def fetch(folder: Path) -> None:
        fetches.append(folder)
        write(folder)

    def ask() -> None:
        go.wait()
        cache.get("1.1", 1, fetch)

    cache = SeriesCache(tmp_path, 2500)
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetches) == 1
