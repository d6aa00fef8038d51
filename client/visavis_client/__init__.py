"""The client of visavis: an avatar that talks and listens, frame by frame, as a conversation goes.

    from visavis_client import Client, Conversation

    conversation = Conversation.from_files(avatar_audio="ada.wav", user_video="me.mp4")
    with Client("localhost:8001") as client:
        with client.session(portrait="ada.png", seed=7) as session:
            for frame in session.stream(conversation):
                show(frame.image, frame.pts_s)

`AsyncClient` is the same for asyncio. Every error is a `VisavisError`; `visavis_client._errors` has
their tree. `FakeTransport` stands in for a server in tests. `visavis_client.face`,
`visavis_client.media` and `visavis_client.film` find faces, read and write media.
"""

from visavis_client._aio import AsyncClient, AsyncSession
from visavis_client._client import Client, Session
from visavis_client._errors import (
    AudioError,
    DeadlineExceeded,
    InputError,
    MediaError,
    MediaWarning,
    NoFaceError,
    PortraitError,
    RequestRefused,
    ServerError,
    ServerUnavailable,
    SessionEnded,
    SessionNotFound,
    SeveralFacesError,
    StreamBroken,
    TranscriptError,
    VisavisError,
)
from visavis_client._grpc import GrpcAioTransport, GrpcTransport
from visavis_client._transport import (
    AsyncFakeTransport,
    AsyncTransport,
    FakeTransport,
    Stream,
    Transport,
)
from visavis_client._types import (
    BlockTiming,
    Chunk,
    Frame,
    ModelStatistics,
    Portrait,
    Position,
    ServerInfo,
    SessionOptions,
    Turn,
)
from visavis_client._wire import Request, Response
from visavis_client.conversation import Conversation

__all__ = [
    "AsyncClient",
    "AsyncFakeTransport",
    "AsyncSession",
    "AsyncTransport",
    "AudioError",
    "BlockTiming",
    "Chunk",
    "Client",
    "Conversation",
    "DeadlineExceeded",
    "FakeTransport",
    "Frame",
    "GrpcAioTransport",
    "GrpcTransport",
    "InputError",
    "MediaError",
    "MediaWarning",
    "ModelStatistics",
    "NoFaceError",
    "Portrait",
    "PortraitError",
    "Position",
    "Request",
    "RequestRefused",
    "Response",
    "ServerError",
    "ServerInfo",
    "ServerUnavailable",
    "Session",
    "SessionEnded",
    "SessionNotFound",
    "SessionOptions",
    "SeveralFacesError",
    "Stream",
    "StreamBroken",
    "TranscriptError",
    "Transport",
    "Turn",
    "VisavisError",
]
