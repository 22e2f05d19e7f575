"""`sample`: a share of the records, the same ones in every attempt and every instance. Sans-I/O."""

from hashlib import blake2b

from logfan.record import Record

_BYTES = 8
_SCALE = 1 << (8 * _BYTES)


def is_sampled(record: Record, share: float) -> bool:
    """Whether the record is among the share (0 to 1): by its message id, or by what it is."""
    identity = record.message_id
    if identity is not None:
        digest = blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=_BYTES)
    else:
        digest = blake2b(record.routing_key.encode("utf-8", "surrogatepass"), digest_size=_BYTES)
        digest.update(record.body)
    return int.from_bytes(digest.digest()) < share * _SCALE
