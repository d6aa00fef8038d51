"""Mutual TLS: who has a certificate converses, who has none does not, and the watchdog watches."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import grpc
import pytest
from visavis_client import Client, Portrait, ServerUnavailable

from benchmarks.provoke import process_of
from tests.integration.conftest import CONFIG, FREE, sound
from visavis.serving.gateway import Limits
from visavis.serving.server import Server
from visavis.serving.tls import Tls

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes them")


def certificate(folder: Path, name: str, issuer: str | None) -> None:
    """`name`.pem and `name`.key, for localhost, by another of the folder or by itself."""
    by = [] if issuer is None else ["-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key"]
    subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost"]
    made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    files = ["-keyout", f"{name}.key", "-out", f"{name}.pem"]
    command = ["openssl", "req", "-x509", *made, *subject, *files, *by]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    certificate(folder, "authority", None)
    for name in ("server", "client"):
        certificate(folder, name, "authority")
    return folder


@pytest.fixture(scope="module", params=[None, Limits()], ids=["triton's", "the gateway's"])
def secured(repository, keys, request):
    tls = Tls(keys / "server.pem", keys / "server.key", keys / "authority.pem")
    options = {"tls": tls, "limits": request.param, "max_sessions": 64, "stop_timeout_s": 2}
    with Server(repository, ports=FREE, **options) as running:
        yield running


def credentials(keys: Path, name: str | None) -> grpc.ChannelCredentials:
    own = [] if name is None else [(keys / f"{name}.{end}").read_bytes() for end in ("key", "pem")]
    return grpc.ssl_channel_credentials((keys / "authority.pem").read_bytes(), *own)


def address(server: Server) -> str:
    return f"localhost:{server.ports.grpc}"


def test_who_has_a_certificate_converses_and_is_watched_over(secured, keys, portrait):
    face = Portrait(portrait["portrait"], portrait["region_centers"])
    client = Client(address(secured), credentials=credentials(keys, "client"))
    with client, client.session(portrait=face) as session:
        for part in range(4):
            session.send(avatar_audio=sound(20, part))
            if part == 1:
                process_of(secured, "sdcm_denoiser").kill()
        session.finish()
        assert [frame.index for frame in session.frames()] == list(range(80))
    assert secured.healed["sdcm_denoiser"] == 1 and CONFIG.block_frames < 80


@pytest.mark.parametrize("kind", ["plain", "no certificate of one's own"])
def test_who_has_none_does_not(secured, keys, kind):
    own = None if kind == "plain" else credentials(keys, None)
    client = Client(address(secured), credentials=own, connect_timeout_s=2.0)
    with client, pytest.raises(ServerUnavailable):
        _ = client.server


def test_what_cannot_be_encrypted_stays_on_this_machine(repository, keys):
    tls = Tls(keys / "server.pem", keys / "server.key")
    server = Server(repository, host="0.0.0.0", tls=tls)
    assert server.http_url.startswith("http://127.0.0.1:")
    assert server.metrics_url.startswith("http://127.0.0.1:")
