"""Ask a Schema Registry for writer schemas, and register ours with it.

Subjects are named after the record (RecordNameStrategy), as one topic carries several types.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from time import monotonic
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

with warnings.catch_warnings(record=True):  # authlib tells every user which HTTP client its importers should prefer
    from confluent_kafka.schema_registry import RegisteredSchema, Schema, SchemaRegistryClient, SchemaRegistryError

from schemas.errors import InputError, ServiceUnreachable
from schemas.references import REFERENCES_MAX, inlined
from schemas.rejection import Reason, Rejected
from schemas.writer_schemas import NAMESPACE, CommittedSchemas, WriterSchemas, current_texts

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT_S = 2
RETRIES_MAX = 1
"""Together they take less than the 5 s in which a worker must end; the caller tries again at its own pace."""

UNKNOWN_FOR_S = 3
"""How long an unknown id is not asked for again; a schema that is registered late is found after that."""

UNKNOWN_KEPT_MAX = 10_000
REFUSED_FOR_S = 60
"""How long the registry must refuse one id, while it answers others, before events with that id are set aside."""

AWAY_FOR_S = 1
"""How long nothing is asked after the registry did not answer: each question could take TIMEOUT_S."""

NOBODYS_ID = 2**31 - 1
"""An id that no registry has given out: a registry that answers "not found" does answer us."""

_NOT_FOUND = 404
_REFUSED = (409, 422)
_BAD_REQUEST = 400
_SERVER_ERROR = 500
_MOMENTARY = (408, 425, 429)


def registry_client(url: str, timeout_s: float = TIMEOUT_S) -> SchemaRegistryClient:
    """Return a client of the registry at `url`; user and password may stand in it.

    Raises:
        InputError: `url` is none.
    """
    try:
        return SchemaRegistryClient.new_client(
            {"url": url, "timeout": timeout_s, "max.retries": RETRIES_MAX, "retries.wait.ms": 100}
        )
    except ValueError as error:
        raise InputError(
            f"SCHEMA_REGISTRY_URL is no address of a registry: {error}; write it like http://localhost:8081"
        ) from None


class RegistrySchemas:
    """Know the schemas of a registry, and the committed ones, whose ids no registry hands out.

    An unknown id is remembered for UNKNOWN_FOR_S, so that a flood of messages with one bad id costs one request.
    If the registry refuses an id (with HTTP 403, say) for REFUSED_FOR_S while it answers others, the message is to
    blame; if it refuses all of them, our access is. At most 10,000 ids are remembered, the newest.
    """

    def __init__(self, client: SchemaRegistryClient, url: str, clock_s: Callable[[], float] = monotonic) -> None:
        self._client = client
        self._place = place_of(url)
        self._clock_s = clock_s
        self._committed = CommittedSchemas()
        self._unknown_until_s: OrderedDict[int, float] = OrderedDict()
        self._refused_since_s: OrderedDict[int, float] = OrderedDict()
        self._words: dict[int, str] = {}
        self._away_until_s = 0.0
        self._away = ""

    def lookup(self, schema_id: int) -> str | None:
        """Return the schema's JSON text, or None where the registry does not know the id or it is not Avro.

        Raises:
            ServiceUnreachable: the registry does not answer, answers with a fault of its own, or has begun to refuse
                the id.
            Rejected: the registry has refused this id for long; the message has its words.
        """
        committed = self._committed.lookup(schema_id)
        if committed is not None:
            return committed

        # a schema id that was unknown a moment ago is not asked for again
        now_s = self._clock_s()
        if self._unknown_until_s.get(schema_id, now_s) > now_s:
            if schema_id in self._words:
                raise Rejected(Reason.UNKNOWN_SCHEMA, self._words[schema_id])
            return None
        if now_s < self._away_until_s:
            raise ServiceUnreachable(self._away)

        text = self._ask(schema_id, now_s)
        self._refused_since_s.pop(schema_id, None)
        self._words.pop(schema_id, None)
        if text is None:
            self._remember(schema_id, now_s)
        return text

    def _remember(self, schema_id: int, now_s: float) -> None:
        """Remember that an id is unknown."""
        self._unknown_until_s.pop(schema_id, None)
        self._unknown_until_s[schema_id] = now_s + UNKNOWN_FOR_S
        if len(self._unknown_until_s) > UNKNOWN_KEPT_MAX:
            oldest, _ = self._unknown_until_s.popitem(last=False)
            self._words.pop(oldest, None)

    def _ask(self, schema_id: int, now_s: float) -> str | None:
        """Ask the registry for a schema; return its text with all that it refers to, None where there is none."""
        try:
            schema = self._client.get_schema(schema_id)
            definitions = self._referred_to(schema)
        except SchemaRegistryError as error:
            if _is_registrys_not_found(error):
                return None
            if _is_refusal(error):
                self._note_refusal(schema_id, error, now_s)
                raise _refusal(self._place, schema_id, error) from None
            raise _unreachable(self._place, error) from None
        except Exception as error:  # noqa: BLE001  the client raises anything on what is no registry's answer
            away = _unreachable(self._place, error)
            self._away, self._away_until_s = str(away), now_s + AWAY_FOR_S
            raise away from None

        text = schema.schema_str if schema.schema_type == "AVRO" else None
        if text is None or not definitions:
            return text
        try:
            return inlined(text, definitions)
        except (ValueError, RecursionError):
            return text  # reading the schema will say what is wrong with it

    def _referred_to(self, schema: Schema) -> dict[str, str]:
        """Return the schemas that one refers to, directly or through others, by the names that the references use."""
        definitions: dict[str, str] = {}
        left = list(schema.references or ())
        while left and len(definitions) < REFERENCES_MAX:
            reference = left.pop()
            name, subject, version = reference.name, reference.subject, reference.version
            if name is None or name in definitions or subject is None or version is None:
                continue
            referred = self._client.get_version(subject, version).schema
            if referred is not None and referred.schema_str is not None:
                definitions[name] = referred.schema_str
                left += referred.references or ()
        return definitions

    def _note_refusal(self, schema_id: int, error: SchemaRegistryError, now_s: float) -> None:
        """Note a refusal; raise if it has lasted for long and the registry does answer other questions of ours."""
        since_s = self._refused_since_s.setdefault(schema_id, now_s)
        if len(self._refused_since_s) > UNKNOWN_KEPT_MAX:
            self._refused_since_s.popitem(last=False)
        if now_s - since_s < REFUSED_FOR_S or not self._answers():
            return
        self._words[schema_id] = (
            f"the Schema Registry refuses schema id {schema_id} ({_words_of(error)}); let this user read it, then "
            "release the event"
        )
        self._remember(schema_id, now_s)
        raise Rejected(Reason.UNKNOWN_SCHEMA, self._words[schema_id])

    def _answers(self) -> bool:
        try:
            self._client.get_schema(NOBODYS_ID)
        except SchemaRegistryError as error:
            return _is_registrys_not_found(error)
        except Exception:  # noqa: BLE001  as above
            return False
        return True


def writer_schemas(url: str | None) -> WriterSchemas:
    """Return the schemas of the registry at `url`, or without one the committed table."""
    return RegistrySchemas(registry_client(url), url) if url else CommittedSchemas()


def register_all(client: SchemaRegistryClient, url: str = "") -> dict[str, int]:
    """Register every current schema under its record's name, and return the ids by record name; safe to repeat.

    Raises:
        ServiceUnreachable: the registry does not answer.
        InputError: the registry refuses a schema, as another one stands under the same subject.
    """
    ids = {}
    for name, text in current_texts().items():
        subject = f"{NAMESPACE}.{name}"
        try:
            ids[name] = client.register_schema(subject, Schema(text, "AVRO"))

        # another schema under the subject is the operator's to mend; all else is a registry that does not answer
        except SchemaRegistryError as error:
            if error.http_status_code not in _REFUSED:
                raise _unreachable(place_of(url), error) from None
            raise InputError(
                f"the Schema Registry refuses the schema of subject {subject}: {error.error_message}; compare what "
                f"stands under that subject, or set its compatibility to NONE, then run `guerdon init` again"
            ) from None
        except Exception as error:  # noqa: BLE001  as above
            raise _unreachable(place_of(url), error) from None
    return ids


def registered_ids(client: SchemaRegistryClient, url: str = "") -> dict[str, int]:
    """Return the ids of the current schemas by record name, and register nothing: a producer may lack that right.

    Raises:
        ServiceUnreachable: the registry does not answer.
        InputError: a schema is not registered.
    """
    ids: dict[str, int] = {}
    for name, text in current_texts().items():
        subject = f"{NAMESPACE}.{name}"
        try:
            ids[name] = _id_of(client.lookup_schema(subject, Schema(text, "AVRO")))

        # not found is the operator's to mend; all else is a registry that does not answer
        except SchemaRegistryError as error:
            if not _is_registrys_not_found(error):
                raise _unreachable(place_of(url), error) from None
            raise InputError(
                f"the Schema Registry does not hold this release's schema of subject {subject}; run `guerdon init`"
            ) from None
        except Exception as error:  # noqa: BLE001  as above
            raise _unreachable(place_of(url), error) from None
    return ids


def _id_of(answer: RegisteredSchema) -> int:
    if answer.schema_id is None:
        raise ValueError("the answer holds no id")
    return answer.schema_id


def place_of(url: str) -> str:
    """Return host and port of the registry, without the user and password that may stand in `url`."""
    first = urlsplit(url.partition(",")[0])
    return f"{first.scheme}://{first.netloc.rpartition('@')[2]}" if first.netloc else "the configured address"


def _is_registrys_not_found(error: SchemaRegistryError) -> bool:
    """Whether a registry says that it does not know something; another web server's 404 must not set events aside."""
    code = error.error_code
    return error.http_status_code == _NOT_FOUND and isinstance(code, int) and code // 100 == _NOT_FOUND


def _is_refusal(error: SchemaRegistryError) -> bool:
    """Whether the registry refuses this question, and is not merely busy or in trouble."""
    status = error.http_status_code
    return _BAD_REQUEST <= status < _SERVER_ERROR and status not in (_NOT_FOUND, *_MOMENTARY)


def _words_of(error: SchemaRegistryError) -> str:
    return f"HTTP {error.http_status_code}, code {error.error_code}: {str(error.error_message)[:200]}"


def _refusal(place: str, schema_id: int, error: SchemaRegistryError) -> ServiceUnreachable:
    return ServiceUnreachable(
        f"the Schema Registry at {place} refuses schema id {schema_id} ({_words_of(error)}); let this user read it, "
        "or correct SCHEMA_REGISTRY_URL"
    )


def _unreachable(place: str, error: Exception) -> ServiceUnreachable:
    return ServiceUnreachable(
        f"the Schema Registry at {place} does not answer as one ({type(error).__name__}: {str(error)[:200]}); "
        f"start it, or correct SCHEMA_REGISTRY_URL"
    )
