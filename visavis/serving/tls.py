"""This is where encryption is put into the words of those who need it.

They are Triton's flags, the arguments of `tritonclient` and gRPC's credentials, all of PEM files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc


@dataclass(frozen=True)
class Trust:
    """TLS as a client has it. Without `authority`, the certificate itself is trusted.

    With `key`, the certificate is shown to a server that asks for one (mutual TLS). `name` is one
    that the server's certificate is for, where the address is another.
    """

    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if self.key is not None and self.certificate is None:
            raise ValueError("TLS: got a key, expected its certificate, too; give both")

    @property
    def trusted(self) -> Path | None:
        """Whose certificates are good; None where there is no TLS."""
        return self.authority or self.certificate

    def channel(self) -> dict[str, object]:
        """Arguments of a `tritonclient`; none where there is no TLS."""
        if self.trusted is None:
            return {}
        found: dict[str, object] = {"ssl": True, "root_certificates": str(self.trusted)}
        if self.key is not None:
            found |= {"private_key": str(self.key), "certificate_chain": str(self.certificate)}
        return found | {"channel_args": self.options()}

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Of a gRPC channel; None where there is no TLS. OSError where a file cannot be read."""
        if self.trusted is None:
            return None
        own = [file.read_bytes() for file in (self.key, self.certificate) if self.key and file]
        return grpc.ssl_channel_credentials(self.trusted.read_bytes(), *own)

    def options(self) -> list[tuple[str, str]]:
        """Of a gRPC channel."""
        return [] if self.name is None else [("grpc.ssl_target_name_override", self.name)]


@dataclass(frozen=True)
class Tls:
    """TLS as a server has it: who it is, and who may speak to it.

    With `client_authority`, clients need a certificate of it (mutual TLS), and so do the server's
    own helpers, which show the server's. `name` is one that the server's certificate is for.
    """

    certificate: Path
    key: Path
    client_authority: Path | None = None
    name: str = "localhost"

    def flags(self) -> dict[str, object]:
        """Of `tritonserver`."""
        found: dict[str, object] = {
            "grpc-use-ssl": "true",
            "grpc-server-cert": self.certificate,
            "grpc-server-key": self.key,
        }
        if self.client_authority is not None:
            found |= {"grpc-use-ssl-mutual": "true", "grpc-root-cert": self.client_authority}
        return found

    def credentials(self) -> grpc.ServerCredentials:
        """Of a gRPC server. OSError where a file cannot be read."""
        pair = (self.key.read_bytes(), self.certificate.read_bytes())
        authority = self.client_authority
        return grpc.ssl_server_credentials(
            [pair], authority and authority.read_bytes(), require_client_auth=authority is not None
        )

    def own(self) -> Trust:
        """What a client on this machine trusts this very server by."""
        return Trust(self.certificate, self.key, name=self.name)
