"""Fitted prompt embeddings on disk: fitted once, shared by every pair that uses the query.

A store is a folder: ``store.json`` says which backbone and which fit configuration its embeddings
belong to, and every ``*.safetensors`` shard holds a stack of them. The shard's own header is its
index, so the two cannot disagree.
"""

from __future__ import annotations

import json
import os
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from diffcorr.errors import StoreError, check_finite
from diffcorr.stores.files import remove_drafts, set_aside, unique_name, writable_folder, write_atomic

Item = tuple[str, int]
"""(query id, round)."""

_IDENTITY = "store.json"

DAMAGE = (SafetensorError, OSError, KeyError, IndexError, TypeError, ValueError)
"""What reading a damaged shard raises."""


class EmbeddingStore(AbstractContextManager["EmbeddingStore"]):
    """Append-only store of prompt embeddings, keyed by (query id, round).

    Any number of processes may add to one folder at the same time; each sees what the others have
    written after :meth:`refresh`. A crash loses at most the items added since the last flush. Every item
    has a checksum in its shard's header; a shard with a wrong one, or one that cannot be read at all, is set
    aside (``damaged/``) and what it held is missing again.

    Args:
        folder: where the shards lie; created where missing.
        backbone_fingerprint: identity of the frozen model that the embeddings were fitted on.
        fit_hash: identity of the fit configuration.
        items_per_shard: a full buffer of this many items is flushed by itself; by default as many as the
            largest pack has, so that a pack is one file: whole, or missing as a whole.

    Attributes:
        hits: how many :meth:`get` calls found all they asked for.
        misses: how many did not.

    Raises:
        StoreError: the folder cannot be written, or belongs to another backbone or fit configuration.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        backbone_fingerprint: str,
        fit_hash: str,
        items_per_shard: int = 256,
    ) -> None:
        self.folder = writable_folder(folder)
        self.items_per_shard = items_per_shard
        self.hits = 0
        self.misses = 0
        self._place: dict[Item, tuple[Path, int]] = {}
        self._rounds: defaultdict[str, set[int]] = defaultdict(set)
        self._buffer: dict[Item, tuple[Tensor, Tensor]] = {}
        self._known_shards: set[Path] = set()
        self._checked: set[Item] = set()
        remove_drafts(self.folder)
        self._claim({"backbone": backbone_fingerprint, "fit": fit_hash})
        self.refresh()

    def __len__(self) -> int:
        return len(self._place) + len(self._buffer)

    def __contains__(self, item: object) -> bool:
        return item in self._place or item in self._buffer

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.flush()

    def add(self, query_id: str, round: int, embedding: Tensor, losses: Sequence[float] | Tensor) -> None:
        """Keep one fitted embedding. The first of an item stays; adding it again changes nothing.

        Args:
            query_id: identity of the query.
            round: which random initialisation, from 0.
            embedding: (P, D), kept in fp32.
            losses: (steps,), the loss at each step of the fit.

        Raises:
            StoreError: the embedding is not (P, D).
            DivergedError: it is not finite.
        """
        item = (query_id, int(round))
        if item in self:
            return
        kept = embedding.detach().to("cpu", torch.float32, copy=True)
        if kept.ndim != 2:
            raise StoreError(f"expected an embedding (P, D), found {tuple(kept.shape)} for {query_id!r}")
        check_finite(kept, query_id, round)
        curve = torch.as_tensor(losses).detach().to("cpu", torch.float32, copy=True).reshape(-1)
        self._buffer[item] = (kept, curve)
        self._rounds[query_id].add(item[1])
        if len(self._buffer) >= self.items_per_shard:
            self.flush()

    def get(self, query_id: str, rounds: int | None = None) -> Tensor | None:
        """The embeddings of a query, (R, P, D) fp32 in the order of their rounds.

        Args:
            query_id: identity of the query.
            rounds: how many rounds are wanted, 0..rounds-1; ``None`` takes all that are there.

        Returns:
            The tensor, or ``None`` when a wanted round (or the query) is not stored.
        """
        found = self.rounds(query_id)
        wanted = found if rounds is None else list(range(rounds))
        if not wanted or not set(wanted) <= set(found):
            self.misses += 1
            return None
        self.hits += 1
        return torch.stack([self._read((query_id, round))[0] for round in wanted])

    def losses(self, query_id: str, round: int) -> Tensor:
        """The loss curve of one item, (steps,) fp32.

        Raises:
            StoreError: the item is not stored.
        """
        if (query_id, round) not in self:
            raise StoreError(
                f"no embedding of {query_id!r} round {round} in {str(self.folder)!r}: fit it first"
            )
        return self._read((query_id, round))[1]

    def rounds(self, query_id: str) -> list[int]:
        """The stored rounds of a query, ascending."""
        return sorted(self._rounds.get(query_id, ()))

    def missing(self, query_ids: Iterable[str], rounds: int) -> list[Item]:
        """The items among ``query_ids`` x 0..rounds-1 that still have to be fitted, in that order.

        Those that are there are read, once by each process, and compared with their checksums.
        """
        wanted = [(query_id, round) for query_id in query_ids for round in range(rounds)]
        self._check(wanted)
        if any(item not in self for item in wanted):  # another process may have it
            self.refresh()
            self._check(wanted)
        return [item for item in wanted if item not in self]

    def flush(self) -> None:
        """Write all buffered items as one shard, whole or not at all."""
        if not self._buffer:
            return
        items = list(self._buffer)
        shapes = {tuple(embedding.shape) for embedding, _ in self._buffer.values()}
        if len(shapes) > 1:
            raise StoreError(f"expected embeddings of one shape in a store, found {sorted(shapes)}")
        curves = [curve for _, curve in self._buffer.values()]
        tensors = {
            "embeddings": torch.stack([embedding for embedding, _ in self._buffer.values()]),
            "losses": torch.cat(curves),
            "loss_counts": torch.tensor([len(curve) for curve in curves]),
        }
        sums = [_checksum(*kept) for kept in self._buffer.values()]
        header = {"items": json.dumps(items), "crc32": json.dumps(sums)}
        path = self.folder / f"embeddings-{unique_name()}.safetensors"
        write_atomic(path, lambda to: to.write_bytes(save(tensors, header)))
        self._buffer.clear()
        self._index(path, items)

    def refresh(self) -> None:
        """See the shards that other processes have written since."""
        for path in sorted(self.folder.glob("embeddings-*.safetensors")):
            if path not in self._known_shards:
                try:
                    with safe_open(path, "pt") as shard:
                        items = json.loads(shard.metadata()["items"])
                    self._index(path, [(query_id, int(round)) for query_id, round in items])
                except DAMAGE as error:
                    set_aside(path, error)

    def _index(self, path: Path, items: Sequence[Item]) -> None:
        for row, item in enumerate(items):
            self._place.setdefault(item, (path, row))
            self._rounds[item[0]].add(item[1])
        self._known_shards.add(path)

    def _check(self, items: Iterable[Item]) -> None:
        """Compare items with their checksums, each once, and give up the shards where one is wrong."""
        rows: defaultdict[Path, dict[Item, int]] = defaultdict(dict)
        for item in items:
            if item in self._place and item not in self._checked:
                path, row = self._place[item]
                rows[path][item] = row
        for path, members in rows.items():
            try:
                with safe_open(path, "pt") as shard:
                    sums = json.loads(shard.metadata().get("crc32", "null"))  # old shards have none
                    embeddings, losses = shard.get_slice("embeddings"), shard.get_tensor("losses")
                    curves = losses.split(shard.get_tensor("loss_counts").tolist())
                    for row in members.values():
                        if sums is not None and sums[row] != _checksum(embeddings[row], curves[row]):
                            raise ValueError("wrong checksum")
            except DAMAGE as error:
                set_aside(path, error)
                self._forget(path)
            else:
                self._checked |= members.keys()

    def _forget(self, path: Path) -> None:
        """See what a shard held as missing."""
        for item in [item for item, (place, _) in self._place.items() if place == path]:
            del self._place[item]
            self._rounds[item[0]].discard(item[1])
            self._checked.discard(item)
        self._known_shards.discard(path)

    def _read(self, item: Item) -> tuple[Tensor, Tensor]:
        if item in self._buffer:
            return self._buffer[item]
        path, row = self._place[item]
        with safe_open(path, "pt") as shard:
            counts = shard.get_tensor("loss_counts")
            start, count = int(counts[:row].sum()), int(counts[row])
            return shard.get_slice("embeddings")[row], shard.get_tensor("losses")[start : start + count]

    def _claim(self, identity: dict[str, str]) -> None:
        """Write the store's identity where there is none, or compare with the one that is there.

        ``link`` fails where the name exists, so that of two processes that open a new folder at the
        same moment one writes and the other compares.
        """
        path = self.folder / _IDENTITY
        draft = self.folder / f".{_IDENTITY}.{unique_name()}.tmp"
        draft.write_text(json.dumps(identity, indent=2) + "\n")
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
        try:
            found = json.loads(path.read_text())
            found = {key: str(found[key]) for key in identity}
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"expected the identity of a store in {str(path)!r}: delete the folder"
            ) from error
        for key, meaning in (("backbone", "backbone"), ("fit", "fit configuration")):
            if found[key] != identity[key]:
                raise StoreError(
                    f"expected embeddings of {meaning} {identity[key]!r}, found those of {found[key]!r} in "
                    f"{str(self.folder)!r}: choose another folder, or restore that {meaning}"
                )


def _checksum(embedding_PD: Tensor, losses: Tensor) -> int:
    """CRC-32 of the bytes of an item."""
    return zlib.crc32(losses.numpy().tobytes(), zlib.crc32(embedding_PD.contiguous().numpy().tobytes()))
