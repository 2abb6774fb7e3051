"""A wire to a server that falls silent: it swallows a question and stays open, as when the host behind it is gone."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Wire:
    """Forwards connections from a port on loopback; the one that says `until` is heard no more, once."""

    port: int
    until: bytes = b""
    silent: threading.Event = field(default_factory=threading.Event)

    def serve(self, listener: socket.socket, server: int) -> None:
        """Forward what comes until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                ends = (client, socket.create_connection(("127.0.0.1", server)))
                for source, target in (ends, ends[::-1]):
                    threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self.until and self.until in data:
                    self.until = b""
                    self.silent.set()
                    while source.recv(65536):
                        pass
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def wire_to(server: int) -> Iterator[Wire]:
    """A wire to a port on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        wire = Wire(listener.getsockname()[1])
        threading.Thread(target=wire.serve, args=(listener, server), daemon=True).start()
        yield wire
        listener.shutdown(socket.SHUT_RDWR)
