"""The files of a page: whole, escaped, only over a page of ours, and only of models it can run."""

import base64
import dataclasses
import hashlib
import html.parser
import json
import os
import re
import urllib.error
import urllib.request

import pytest

from tests.inference.test_export_info import RAW, make_info
from tests.web.browser import Serving
from topformer_d2.errors import InputError
from topformer_d2.inference.export_info import ExportInfo
from topformer_d2.web import SiteServer, check_site_folder, write_site
from topformer_d2.web.model import _check
from topformer_d2.web.runtime import FILES
from topformer_d2.web.site import HEADERS

EVIL = "<script>alert('x')</script>&\"%POLICY%"


@pytest.fixture
def write(tmp_path):
    """write_site with small stand-ins for the model and the runtime."""

    def write(output="site", model=b"a model", title="a title", info=None):
        (tmp_path / "model.onnx").write_bytes(model)
        runtime = {name: name.encode() for name in (*FILES, "LICENSE.txt")}
        info = info or make_info(batch=None, outputs=("logits", *RAW))
        write_site(tmp_path / output, tmp_path / "model.onnx", info, title, runtime)
        return tmp_path / output

    return write


def files_of(folder):
    return {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}


class Page(html.parser.HTMLParser):
    """Addresses that a page names, its ids, the words for labels, and what is inside of tags."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.ids = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append((tag, values))
        self.addresses += [values[key] for key in ("src", "href") if key in values]
        self.ids += [values["id"]] if "id" in values else []


def test_all_that_the_page_names_is_there(write):
    site = write(title=EVIL)
    text, files = (site / "index.html").read_text(), files_of(site)
    page = Page(text)
    assert set(page.addresses) - {"#stage"} <= set(files)
    scripts = [tag for tag, _ in page.tags if tag == "script"]
    assert scripts == ["script"] and "%" not in re.sub(r"%POLICY%&?|\d%", "", text)
    assert HEADERS["Content-Security-Policy"] in html.unescape(text)
    for name, path in files.items():
        if name.endswith(".js"):
            script = path.read_text()
            for imported in re.findall(r'from "\./(.+?)"', script):
                assert f"scripts/{imported}" in files, name
            for used in re.findall(r'element\("([\w-]+)"\)|getElementById\("([\w-]+)"\)', script):
                assert "".join(used) in page.ids, name
            assert len(script.splitlines()) < 300
    for tag, values in page.tags:
        assert not any(key.startswith("on") or key == "style" for key in values), tag


def test_the_list_and_the_service_worker_know_each_file(write):
    site = write()
    files, found = files_of(site), json.loads((site / "site.json").read_text())
    assert found["files"] == sorted(files)
    digest = hashlib.sha256(b"a model").digest()
    assert found["integrity"] == f"sha256-{base64.b64encode(digest).decode()}"
    info = make_info(batch=None, outputs=("logits", *RAW))
    assert ExportInfo.from_json(json.dumps(found["model"]), "site.json") == info
    values = json.loads(
        re.search(r"^const SITE = (.+); //", (site / "service_worker.js").read_text(), re.M)[1]
    )
    assert values["files"] == sorted(set(files) - {"service_worker.js"})
    assert values["headers"] == HEADERS
    later = set(values["files"]) - set(values["shell"])
    assert later == {"model.onnx", *(f"runtime/{name}" for name in (*FILES, "LICENSE.txt"))}


def test_the_same_page_is_the_same_bytes_and_another_model_another_version(write):
    first = {name: path.read_bytes() for name, path in files_of(write()).items()}
    again = {name: path.read_bytes() for name, path in files_of(write("other")).items()}
    assert first == again
    changed = write("third", model=b"another")
    different = {n for n, p in files_of(changed).items() if p.read_bytes() != first[n]}
    assert different == {"model.onnx", "site.json", "service_worker.js"}


def test_only_an_empty_folder_or_a_page_is_written_to(write, tmp_path):
    (tmp_path / "site").mkdir()
    site = write()
    (site / "index.html").write_text("damaged")
    assert "a title" in (write() / "index.html").read_text()
    (site / "scripts/mine.js").write_text("mine")
    with pytest.raises(InputError, match=r"scripts/mine\.js"):
        write()
    assert (site / "scripts/mine.js").read_text() == "mine"
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_text("a")
    for names in (["a.jpg"], ["a.jpg", "site.json"]):
        (tmp_path / "photos" / names[-1]).write_text('{"files": ["a.jpg", "site.json"]}')
        with pytest.raises(InputError, match=r"`output` .*photos"):
            check_site_folder(tmp_path / "photos")
    with pytest.raises(InputError, match="is a file"):
        write("model.onnx")
    leftovers = [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert not leftovers


def test_a_failure_leaves_the_earlier_page(write, monkeypatch):
    site = write()
    replace = os.replace

    def fail(source, target):
        if os.path.basename(source) == "new":
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr("topformer_d2.web.site.os.replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write(model=b"another")
    assert (site / "model.onnx").read_bytes() == b"a model"
    assert json.loads((site / "site.json").read_text())["files"] == sorted(files_of(site))
    assert [path.name for path in site.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("changes", "fix"),
    [
        ({"with_preprocessing": True}, "--with-preprocessing"),
        ({"outputs": ("labels",)}, "--labels"),
        ({"batch": 4}, "4 images"),
    ],
)
def test_models_that_the_page_cannot_run(changes, fix):
    info = dataclasses.replace(make_info(), **changes)
    with pytest.raises(InputError, match=fix) as caught:
        _check(info, "some.onnx")
    assert "some.onnx" in str(caught.value)
    _check(make_info(), "some.onnx")


def test_the_server_gives_files_with_headers_to_this_machine_alone(write, tmp_path):
    site = write()
    (tmp_path / "outside.txt").write_text("not of the page")
    with Serving(SiteServer(site, 0)) as serving:
        assert serving.url.startswith("http://127.0.0.1:")
        kinds = {
            "": "text/html",
            "scripts/main.js": "text/javascript",
            "runtime/ort.wasm.min.mjs": "text/javascript",
            "decoder.wasm": "application/wasm",
        }
        for name, kind in kinds.items():
            with urllib.request.urlopen(serving.url + name) as answer:
                assert answer.headers.get_content_type() == kind
                assert all(answer.headers[key] == value for key, value in HEADERS.items())
        for name in ("scripts/", "../outside.txt", "%2e%2e/outside.txt", "none"):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(serving.url + name)
            assert caught.value.code == 404
        port = serving.server.server_address[1]
        with pytest.raises(InputError, match=rf"`port` {port}\b"):
            SiteServer(site, port)
    with pytest.raises(InputError, match="`port` is 70000"):
        SiteServer(site, 70000)
