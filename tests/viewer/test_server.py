"""What the server answers, to whom, and what it never gives out."""

from __future__ import annotations

import http.client
import io
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from gimp_fast.errors import GimpError
from gimp_fast.viewer import ViewServer, open_maps


def ask(server, address, *, method="GET", host=None, token=None):
    """Status, headers and content."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    token = server.token if token is None else token
    headers = {"Host": host or f"127.0.0.1:{server.server_port}"}
    connection.putrequest(method, f"/{token}{address}", skip_host=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.headers, content


@pytest.fixture
def server(serve, map_folder, image_folder):
    return serve(map_folder, images=image_folder)


def test_the_page_loads_only_from_its_server(server):
    status, headers, content = ask(server, "/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"
    assert b"//" not in content.replace(b"<!doctype html>", b"")
    assert ask(server, "/static/app.js")[0] == 200


def test_it_listens_on_loopback_alone(server):
    assert server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize("token", ["", "x", "static", "%2e%2e"])
def test_a_wrong_token_finds_nothing(server, token):
    assert ask(server, "/catalogue", token=token)[0] == 404


def test_a_token_cut_short_or_with_a_byte_more_finds_nothing(server):
    for token in (server.token[:-1], server.token + "A", server.token.swapcase()):
        assert ask(server, "/catalogue", token=token)[0] == 404


def test_every_server_has_another_token(server, serve, map_folder):
    other = serve(map_folder)
    assert other.token != server.token
    assert len(server.token) >= 32


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "localhost", ""])
def test_a_host_of_another_name_is_refused(server, host):
    assert ask(server, "/catalogue", host=host or " ")[0] == 403


def test_localhost_is_this_host_too(server):
    assert ask(server, "/catalogue", host=f"localhost:{server.server_port}")[0] == 200


@pytest.mark.parametrize(
    "address",
    [
        "/../../etc/passwd", "/static/../page.py", "/static/..%2fpage.py", "/static//etc/passwd",
        "/static/openseadragon/../../server.py", "/heatmaps.json", "/A-1/patches.csv",
        "/patches/0/0/../0", "/patches/-1/0/0", "/patches/0/0", "/patches/9/0/0", "/patches/0/9/0",
        "/patches/0/0/9", "/tile/0/0/0/9", "/tile/9/0/0/0", "/tile/0/99/0/0", "/genes/0/1",
        "/crop/0/0/0/9", "/slide/0/0", "/catalogue/", "/catalogue?x=/etc/passwd", "//",
        "/patches/0/0/0%00", "/static/view.html.j2",
    ],
)  # fmt: skip
def test_no_address_leads_elsewhere(server, address):
    status, _, content = ask(server, address)
    assert (status, json.loads(content)) == (404, {"error": "not found"})


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_it_only_reads(server, method):
    assert ask(server, "/catalogue", method=method)[0] == 501


def test_head_has_no_content(server):
    status, headers, content = ask(server, "/catalogue", method="HEAD")
    assert (status, content) == (200, b"")
    assert int(headers["Content-Length"]) > 100


def test_patches_are_those_of_the_table(server, map_folder):
    content = ask(server, "/patches/0/0/0")[2]
    table = pd.read_csv(map_folder / "A-1" / "patches.csv")
    columns = np.frombuffer(content, "<f4")[: 5 * 9].reshape(5, 9)
    names = ["x", "y", "attention", "times_even", "percentile"]
    np.testing.assert_allclose(columns, table[names].to_numpy().T, rtol=1e-5)
    whole = np.frombuffer(content, "<i4")[6 * 9 :].reshape(2, 9)
    np.testing.assert_array_equal(whole, table[["row", "rank"]].to_numpy().T)


def test_patients_are_listed_with_what_is_known(server):
    start = json.loads(ask(server, "/catalogue")[2])
    assert [case["case_id"] for case in start["cases"]] == ["A", "B", "C"]
    assert start["slides"] == ["A-1", "B-1", "B-2"]
    (first,) = start["cases"][0]["maps"]
    assert (first["prediction"], first["truth"], first["has_genes"]) == ("LUAD", "LUAD", True)
    assert [slide["number"] for slide in start["cases"][1]["maps"][0]["slides"]] == [1, 2]
    assert start["synthetic"] is True


def test_genes_and_fragments_come_in_order(server):
    genes = json.loads(ask(server, "/genes/0/0")[2])
    assert [gene["name"] for gene in genes["genes"]] == [
        "TP53 (G1)",
        "KRAS (G2)",
        "G3",
        "EGFR (G4)",
    ]
    assert [one["name"] for one in genes["fragments"]] == ["Signals", "DNA repair"]
    assert genes["fragments"][0]["genes"] == ["KRAS (G2)", "G3"]


def test_a_slide_without_an_image_says_so(server):
    assert json.loads(ask(server, "/slide/0")[2])["width"] == 900
    assert "no image of this slide" in json.loads(ask(server, "/slide/1")[2])["missing"]
    assert ask(server, "/tile/1/9/0/0")[0] == 404


def test_the_picture_of_a_patch_is_its_place(server, map_folder):
    """Patch 4 is the middle one of three by three, of 200 pixels."""
    status, headers, content = ask(server, "/crop/0/0/0/4")
    assert (status, headers["Content-Type"]) == (200, "image/jpeg")
    pixels = np.asarray(Image.open(io.BytesIO(content)), float)
    assert pixels.shape == (160, 160, 3)
    np.testing.assert_allclose(pixels.mean((0, 1)), [300 / 900 * 255, 300 / 700 * 255, 128], atol=2)


def test_a_damaged_table_is_told_to_the_page(serve, map_folder, tmp_path):
    folder = shutil.copytree(map_folder, tmp_path / "maps")
    (folder / "A-1" / "patches.csv").write_text("x,y\n1,2\n")
    status, _, content = ask(serve(folder), "/patches/0/0/0")
    assert status == 422
    assert "patches.csv" in json.loads(content)["error"]


def test_a_port_in_use_is_one_clear_error(server, map_folder):
    with pytest.raises(GimpError, match=rf"--port {server.server_port}: cannot be used"):
        ViewServer([open_maps(map_folder)], port=server.server_port)
