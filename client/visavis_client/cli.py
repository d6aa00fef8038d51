"""This is where the command `visavis` is: talk, demo, serve, watch, gateway, doctor.

Errors are one message on stderr and an exit code by kind (`visavis_client._errors`).
"""

from __future__ import annotations

import itertools
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from visavis_client import film
from visavis_client._client import Client, Session
from visavis_client._errors import InputError, MediaWarning, ServerUnavailable, VisavisError
from visavis_client._grpc import checked_url
from visavis_client._report import Report, models_table, speed_table
from visavis_client._types import ImageFormat
from visavis_client.conversation import Conversation
from visavis_client.face import read_image

app = typer.Typer(
    help="An avatar that talks and listens.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()
complaints = Console(stderr=True)

FRAME_TIMEOUT_S = 30.0  # a film need not be live: a slow machine may take its time


class LogFormat(StrEnum):
    """How the server's lines look."""

    TEXT = "text"
    JSON = "json"


ServerOption = Annotated[
    list[str] | None,
    typer.Option(
        help="host:port of a running server's gRPC; several take each other's place. "
        "Without it, one is started."
    ),
]
RepositoryOption = Annotated[
    Path, typer.Option(help="The model repository of the server that is started.")
]
ConfigNameOption = Annotated[
    str | None,
    typer.Option(help="Serve configs/NAME.pbtxt of the models that have one: int8, openvino."),
]
TlsCertificateOption = Annotated[
    Path | None, typer.Option(help="PEM; turns TLS on for gRPC, HTTP stays on this machine.")
]
TlsKeyOption = Annotated[Path | None, typer.Option(help="The certificate's key.")]
TlsClientAuthorityOption = Annotated[
    Path | None, typer.Option(help="Whose certificates clients need, for mutual TLS.")
]
MessageOption = Annotated[
    float, typer.Option("--max-message-mb", help="What the gateway takes in one message.")
]
UnreadOption = Annotated[
    float, typer.Option("--max-unread-mb", help="What it keeps for a client that does not read.")
]
WatchdogPortOption = Annotated[
    int, typer.Option(help="Port of the watchdog's own metrics, which are not Triton's.")
]


@app.command()
def talk(
    portrait: Annotated[Path, typer.Option(help="A picture of the avatar's face.")],
    avatar_audio: Annotated[Path, typer.Option(help="What the avatar says.")],
    out: Annotated[Path, typer.Option(help="The film to write, an MP4.")],
    user_audio: Annotated[Path | None, typer.Option(help="What the user says.")] = None,
    user_video: Annotated[Path | None, typer.Option(help="The user's face.")] = None,
    transcript: Annotated[Path | None, typer.Option(help="Who says what when, as JSON.")] = None,
    server: ServerOption = None,
    repository: RepositoryOption = Path("model_repository"),
    face_index: Annotated[int | None, typer.Option(help="Which face of the portrait.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same film.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Sampling steps a block.")] = None,
    audio_guidance: Annotated[float | None, typer.Option(help="1 is none.")] = None,
    user_guidance: Annotated[float | None, typer.Option(help="1 is none.")] = None,
    image_format: Annotated[str, typer.Option(help="jpeg, raw or h264, on the wire.")] = "jpeg",
) -> None:
    """Make the film of a conversation, and tell how fast it went."""
    with errors_told():
        conversation = Conversation.from_files(
            portrait=portrait,
            avatar_audio=avatar_audio,
            user_audio=user_audio,
            user_video=user_video,
            transcript=transcript,
        )
        picture = read_image(portrait)
        with connected(server, repository) as client:
            session = client.session(
                portrait=picture,
                face_index=face_index,
                seed=seed,
                num_steps=steps,
                audio_guidance_scale=audio_guidance,
                user_guidance_scale=user_guidance,
                image_format=_image_format(image_format),
            )
            report = make_film(client, session, conversation, out)
        console.print(f"{out}: {conversation.frames} frames")
        console.print(speed_table(report), models_table(report))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The film to write.")] = Path("out/demo.mp4"),
    examples: Annotated[
        Path, typer.Option(help="A folder with portrait.png, avatar.wav and, if any, the user's.")
    ] = Path("examples"),
    server: ServerOption = None,
    repository: RepositoryOption = Path("model_repository"),
) -> None:
    """Make the film of the example conversation."""

    def optional(name: str) -> Path | None:
        return examples / name if (examples / name).exists() else None

    talk(
        portrait=examples / "portrait.png",
        avatar_audio=examples / "avatar.wav",
        out=out,
        user_audio=optional("user.wav"),
        user_video=optional("user.mp4"),
        transcript=optional("transcript.json"),
        server=server,
        repository=repository,
    )


@app.command()
def serve(
    repository: RepositoryOption = Path("model_repository"),
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    grpc_port: Annotated[int, typer.Option(help="Port of gRPC.")] = 8001,
    http_port: Annotated[int, typer.Option(help="Port of HTTP.")] = 8000,
    metrics_port: Annotated[int, typer.Option(help="Port of the metrics.")] = 8002,
    max_sessions: Annotated[
        int | None, typer.Option(help="Not as many conversations as this machine bears, but these.")
    ] = None,
    watchdog_metrics_port: WatchdogPortOption = 8003,
    gateway: Annotated[
        bool | None,
        typer.Option(
            help="Bound what one client may take. By default where others than this machine come."
        ),
    ] = None,
    max_message_mb: MessageOption = 32.0,
    max_unread_mb: UnreadOption = 64.0,
    tls_certificate: TlsCertificateOption = None,
    tls_key: TlsKeyOption = None,
    tls_client_authority: TlsClientAuthorityOption = None,
    tls_name: Annotated[str, typer.Option(help="A name in the certificate.")] = "localhost",
    traces_to: Annotated[
        str | None,
        typer.Option(help="OTLP over HTTP of a collector, as http://localhost:4318/v1/traces."),
    ] = None,
    trace_rate: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="The part of all messages that is traced.")
    ] = 1.0,
    log_format: Annotated[
        LogFormat, typer.Option(help="Of what the models and the watchdog say.")
    ] = LogFormat.TEXT,
    config_name: ConfigNameOption = None,
) -> None:
    """Run a server here until Ctrl-C."""
    with errors_told():
        serving = _serving()
        from visavis.serving import supervisor

        ports = serving.Ports(grpc_port, http_port, metrics_port, watchdog_metrics_port)
        tls = _tls(serving, tls_certificate, tls_key, tls_client_authority, tls_name)
        with _raised_as(InputError, ValueError):
            traces = None if traces_to is None else serving.Traces(traces_to, trace_rate)
            limits = serving.Limits(max_message_mb, max_unread_mb)
        if not (_for_others(host) if gateway is None else gateway):
            limits = None
        serving.logs.start(log_format.value)
        with _raised_as(ServerUnavailable, serving.LaunchError):
            place = serving.Server(
                repository,
                host=host,
                ports=ports,
                config_name=config_name,
                max_sessions=max_sessions,
                tls=tls,
                limits=limits,
                traces=traces,
                log_format=log_format.value,
                log=sys.stderr,
            )
            way = "gRPC" if limits is None else "gRPC, behind a gateway"
            ready = f"visavis listens on {place.grpc_url} ({way}); Ctrl-C ends it"
            supervisor.serve(place, started=lambda: complaints.print(ready))


@app.command()
def watch(
    server: Annotated[str, typer.Argument(help="host:port of a running server's gRPC.")],
    admin_key: Annotated[
        str | None,
        typer.Option(
            envvar="VISAVIS_ADMIN_KEY",
            help="The key of the server's restricted protocols, if it has them.",
        ),
    ] = None,
    pid: Annotated[
        int | None, typer.Option(help="Of tritonserver, where its port does not tell.")
    ] = None,
    model_repository: Annotated[
        Path, typer.Option(help="Whose config.json says what size is served.")
    ] = Path("model_repository"),
    watchdog_metrics_port: WatchdogPortOption = 8003,
    watchdog_metrics_host: Annotated[str, typer.Option(help="Their address.")] = "127.0.0.1",
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM; the server's, or, with a key, one to show to it.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(help="The certificate's key, for mutual TLS.")
    ] = None,
    tls_authority: Annotated[
        Path | None, typer.Option(help="Whose certificates are trusted; else the certificate is.")
    ] = None,
    tls_name: Annotated[
        str | None, typer.Option(help="A name in the server's certificate, if not its address.")
    ] = None,
) -> None:
    """Heal the models of a server that runs already, any tritonserver, until Ctrl-C."""
    with errors_told():
        serving = _serving()
        from visavis.serving import watch as watching

        with _raised_as(InputError, ValueError):
            trust = watching.Trust(tls_certificate, tls_key, tls_authority, tls_name)
        with _raised_as(ServerUnavailable, watching.WatchError), serving.stopped_by_signals():
            watching.watch(
                checked_url(server),
                _size(model_repository),
                admin_key=admin_key,
                pid=pid,
                trust=trust,
                metrics=(watchdog_metrics_host, watchdog_metrics_port),
                started=lambda how: complaints.print(f"{server} is watched {how}; Ctrl-C ends it"),
            )


@app.command()
def gateway(
    server: Annotated[str, typer.Argument(help="host:port of a running server's gRPC.")],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    grpc_port: Annotated[int, typer.Option(help="Port of gRPC, for clients.")] = 8001,
    max_message_mb: MessageOption = 32.0,
    max_unread_mb: UnreadOption = 64.0,
    tls_certificate: TlsCertificateOption = None,
    tls_key: TlsKeyOption = None,
    tls_client_authority: TlsClientAuthorityOption = None,
) -> None:
    """Bound what one client may take of a server, any tritonserver that runs, until Ctrl-C."""
    with errors_told():
        serving = _serving()
        from visavis.serving import gateway as gateways

        tls = _tls(serving, tls_certificate, tls_key, tls_client_authority)
        with _raised_as(InputError, ValueError):
            limits = gateways.Limits(max_message_mb, max_unread_mb)
        with _raised_as(InputError, OSError):
            credentials = None if tls is None else tls.credentials()
        with (
            serving.stopped_by_signals(),
            _raised_as(ServerUnavailable, gateways.GatewayError),
            gateways.served(
                f"{host}:{grpc_port}", checked_url(server), limits, credentials=credentials
            ) as port,
        ):
            complaints.print(f"{host}:{port} is before {server}; Ctrl-C ends it")
            threading.Event().wait()


@app.command()
def doctor(
    repository: RepositoryOption = Path("model_repository"), config_name: ConfigNameOption = None
) -> None:
    """Tell whether a server can run here, and what to do if not."""
    with errors_told():
        _serving()
        from visavis.serving.doctor import checks

        found = checks(repository, config_name=config_name)
    table = Table("", "", "", show_header=False, box=None)
    for check in found:
        mark = "[green]ok[/green]" if check.ok else "[red]no[/red]"
        told = check.found if check.ok else f"{check.found}\n-> {check.remedy}"
        table.add_row(mark, escape(check.name), escape(told))
    console.print(table)
    raise typer.Exit(0 if all(check.ok for check in found) else 1)


def make_film(client: Client, session: Session, conversation: Conversation, out: Path) -> Report:
    """Play `conversation` to `session`, write the film to `out`, and report the times."""
    size = client.server.image_size
    out.parent.mkdir(parents=True, exist_ok=True)
    voices = film.mix_voices(conversation.user_audio, conversation.avatar_audio)
    users = user_pictures(conversation, size)
    before = client.statistics()
    with session, film.FilmWriter(out, (2 * size, size), voices) as writer, progress() as bar:
        frames = session.stream(conversation)
        for frame in bar.track(frames, total=conversation.frames, description="frames"):
            writer.write(np.concatenate([next(users), frame.image], axis=1))
    return Report.of(session.timings, before, client.statistics())


def user_pictures(conversation: Conversation, size: int) -> Iterator[np.ndarray]:
    """The user's side of the film, (S, S, 3) uint8 frame by frame, without end."""
    picture = None
    for picture in conversation.user_faces(size):
        yield picture
    if picture is not None:
        yield from itertools.repeat(picture)
    panel = film.VoicePanel("user", conversation.user_audio, size)
    yield from map(panel.frame, itertools.count())


def progress() -> Progress:
    """A bar on stderr, which leaves stdout to the results."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeRemainingColumn(), console=complaints, transient=True)


@contextmanager
def connected(server: list[str] | None, repository: Path) -> Iterator[Client]:
    """A client of the servers, or of one that lives as long as the context."""
    place = nullcontext(server) if server else running(repository)
    with place as url, Client(url, frame_timeout_s=FRAME_TIMEOUT_S) as client:
        yield client


@contextmanager
def running(repository: Path) -> Iterator[str]:
    """host:port of a server that is started for this context, on free ports."""
    serving = _serving()
    server = serving.Server(repository, ports=serving.Ports(0, 0, 0))
    with (
        _raised_as(ServerUnavailable, serving.LaunchError),
        serving.stopped_by_signals(),
        ExitStack() as stack,
    ):
        with complaints.status("starting the server"):
            stack.enter_context(server)
        yield server.grpc_url


@contextmanager
def errors_told() -> Iterator[None]:
    """Within, an error becomes one message on stderr and an exit code, a warning one message."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", MediaWarning)
        warnings.showwarning = _show_warning
        try:
            yield
        except VisavisError as error:
            _tell("error", "red", str(error))
            raise typer.Exit(error.exit_code) from None
        except BrokenPipeError:
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            _tell("stopped", "yellow", "by Ctrl-C")
            raise typer.Exit(130) from None


@contextmanager
def _raised_as(told: type[VisavisError], kind: type[Exception]) -> Iterator[None]:
    """Within, an error of another package becomes one of ours, in the same words."""
    try:
        yield
    except kind as error:
        raise told(str(error)) from error


def _for_others(host: str) -> bool:
    """Whether other machines may come to an address; True for a name that may be theirs."""
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


def _tls(
    serving: Any, certificate: Path | None, key: Path | None, authority: Path | None, *name: str
) -> Any:
    """The `Tls` of these files; None without any."""
    if (certificate is None) != (key is None):
        raise InputError("TLS: got one of certificate and key, expected both; give the other")
    return None if certificate is None else serving.Tls(certificate, key, authority, *name)


def _size(repository: Path) -> Any:
    """The `EchoConfig` of a model repository."""
    from visavis import config as configs

    try:
        return configs.load(configs.EchoConfig, repository / "config.json")
    except (OSError, ValueError) as error:
        raise InputError(
            f"model repository: got {error}, expected {repository / 'config.json'}; give the "
            "folder that the server serves"
        ) from error


def _serving() -> Any:
    """`visavis.serving.server`, imported only where a server is started."""
    try:
        from visavis.serving import server
    except ImportError as error:
        raise ServerUnavailable(
            f"server: cannot start one here ({error}); pip install 'visavis[serve]', or give "
            "--server host:port of one that runs"
        ) from error
    return server


def _image_format(name: str) -> ImageFormat:
    known: tuple[ImageFormat, ...] = get_args(ImageFormat)
    for one in known:
        if name == one:
            return one
    raise InputError(f"image_format: got {name!r}, expected one of {', '.join(known)}; choose one")


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    _tell("warning", "yellow", str(message))


def _tell(label: str, color: str, message: str) -> None:
    complaints.print(f"[{color}]{label}:[/{color}]", end=" ")
    complaints.print(message, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(app())
