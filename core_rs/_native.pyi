"""Names of the Rust extension. Ids outside are text; arrays are C-contiguous; times are Unix milliseconds."""

from collections.abc import Sequence
from typing import Self, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Answer",
    "Bundle",
    "BundleError",
    "CorruptError",
    "Engine",
    "EngineError",
    "EventBatch",
    "Histories",
    "InternalError",
    "InvalidRequestError",
    "NotFoundError",
    "Plan",
    "VectorIndex",
    "als_half_sweep",
    "basket_vectors",
    "blend_baskets",
    "check_control",
    "check_item",
    "check_placement",
    "check_profile",
    "count_pairs",
    "encode_events",
    "event_columns",
    "feature_names",
    "feature_table",
    "history_length",
    "item_neighbours",
    "neighbours_of_pairs",
    "rank_targets",
    "schema_hash",
    "score_by_histories",
    "sequence_neighbours",
    "source_names",
    "stated_after",
]

class EngineError(Exception):
    """Fault with a stable reason; `reason` is a name of `ErrorReason` without its prefix."""

    reason: str
    field: str

class InvalidRequestError(EngineError):
    """The request is at fault: malformed, or a field out of range. INVALID_ARGUMENT."""

class NotFoundError(EngineError):
    """What the request names does not exist. NOT_FOUND."""

class CorruptError(EngineError):
    """A snapshot or bundle is damaged. DATA_LOSS."""

class InternalError(EngineError):
    """An invariant of the engine broke; never the caller's fault. INTERNAL."""

class BundleError(EngineError):
    """A bundle does not fit this engine. FAILED_PRECONDITION."""

@final
class EventBatch:
    """Checked events of one request."""

    @property
    def rows(self) -> list[tuple[str, str, bytes]]:
        """Event id, visitor key and payload (`Event`) of every valid event, in request order."""
    @property
    def rejected_count(self) -> int: ...
    @property
    def joined_count(self) -> int:
        """Lines whose item is in the catalogue."""
    @property
    def unjoined_count(self) -> int: ...
    def reply(self, statuses: Sequence[int]) -> bytes:
        """Return `RecordEventsResponse`; `statuses` is 0 stored, 1 duplicate, 2 conflict for each row of `rows`."""

@final
class Histories:
    """Histories of visitors that wait for a sequence vector, all for the encoder of one bundle.

    A row is one history in order of time, its newest events, then zeros. Every row has all columns the encoder reads,
    so that the vector of one does not depend on the others.
    """

    @property
    def version(self) -> str:
        """Bundle whose `sequence.onnx` is asked; empty where nobody waits."""
    @property
    def items(self) -> NDArray[np.int64]:
        """Shape (n, length): place in the bundle's item table plus 1; the number above the last is an unknown item."""
    @property
    def actions(self) -> NDArray[np.int64]:
        """Shape (n, length): numbers of `EventType`."""
    @property
    def gaps(self) -> NDArray[np.int64]:
        """Shape (n, length): milliseconds since the event before, in whole seconds; 0 for the first of a row."""
    def __len__(self) -> int: ...

@final
class Plan:
    """Candidates of one request, waiting for scores."""

    @property
    def features(self) -> NDArray[np.float32]:
        """Shape (n, d), read-only, no copy; candidates of all placements that use the model, one after the other."""
    @property
    def request_id(self) -> str: ...
    @property
    def model_version(self) -> str:
        """Bundle whose ONNX must score `features`; empty where rules score and `finish` gets None."""
    @property
    def bundle_version(self) -> str:
        """Bundle whose lists were read, whoever scores; empty if none."""
    @property
    def visitor_key(self) -> str:
        """Whose decision it is: `user_id` if set, else `visitor_id`."""
    @property
    def item_ids(self) -> list[str]:
        """Item of every row of `features`."""
    @property
    def items(self) -> NDArray[np.uint32]:
        """Shape (n,): the engine's number of the item of every row of `features`; an item keeps its number."""
    @property
    def action_weights(self) -> list[list[float]]:
        """Value of every action of the model, one list a placement; empty lists where the heuristic ranks."""
    @property
    def slot_offsets(self) -> list[int]:
        """Row at which every placement begins, and the total: placement i has rows [i, i+1)."""

@final
class VectorIndex:
    """Nearest items by inner product over vectors kept as bytes, 16 items side by side.

    Parameters
    ----------
    vectors : shape (n, d), finite, d up to 4,096
    clusters : centres of shape (c, d) and the place of each item's centre, shape (n,), for `search_near`
    instructions : `scalar`, `avx2` or `avx512vnni`; empty takes the widest of the processor; all give the same bits

    Raises
    ------
    InvalidRequestError : a value is not finite, clusters do not fit, or the processor lacks the instructions
    """

    def __new__(
        cls,
        vectors: NDArray[np.float32],
        *,
        clusters: tuple[NDArray[np.float32], NDArray[np.uint32]] | None = None,
        instructions: str = "",
    ) -> Self: ...
    def search_near(
        self, query: NDArray[np.float32], k: int, *, exact: bool = False
    ) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """Return items and inner products, k of each, best first, of the nearest clusters; of all where there are none.

        A sixteenth of the items is looked at, or more where fewer than k were found; `exact` as for `search`.
        """
    def search(
        self, queries: NDArray[np.float32], k: int, *, allowed: NDArray[np.bool_] | None = None, exact: bool = False
    ) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """Return items and inner products, both of shape (n_queries, min(k, n)), best first, ties by item.

        Parameters
        ----------
        queries : shape (n_queries, d), finite; eight share a pass over the items
        k : items a query; places without one hold 2**32 - 1 and minus infinity
        allowed : shape (n,); only items whose flag is set are found
        exact : score the best 1.5 k once more by the vectors themselves
        """
    @property
    def instructions(self) -> str: ...
    def __len__(self) -> int: ...

@final
class Answer:
    """Bytes of one decision."""

    @property
    def response(self) -> bytes:
        """`RecommendResponse`."""
    @property
    def decision(self) -> bytes:
        """`Decision` for the log; empty when not sampled."""
    @property
    def visitor_key(self) -> str:
        """Whose decision it is: `user_id` if set, else `visitor_id`."""
    @property
    def shadowed(self) -> bool:
        """Whether a shadow trial shall answer the request once more."""
    @property
    def degraded(self) -> list[str]: ...
    @property
    def stage_us(self) -> list[tuple[str, float]]:
        """Name and microseconds of every stage."""

@final
class Bundle:
    """What was read from a bundle folder."""

    @property
    def version(self) -> str: ...
    @property
    def actions(self) -> list[str]: ...
    @property
    def schema_hash(self) -> str: ...
    def score(self, features: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Return the actions of rows of features, shape (n, n_actions); None where onnxruntime has to answer.

        Parameters
        ----------
        features : shape (n, d), columns as in `feature_names()`, finite or NaN for what is missing

        Notes
        -----
        Equal to what onnxruntime answers for `ranker.onnx` to 1e-5. The engine evaluates two kinds of graphs: a small
        chain of Gemm, Relu and Sigmoid; and columns of `TreeEnsembleRegressor` or logistic two-class
        `TreeEnsembleClassifier` nodes side by side (Concat, Gather, Identity, Cast, Sigmoid), with comparisons by
        order and sums for aggregates.
        """

@final
class Engine:
    """Live state of one replica. Every method may be called from any thread."""

    def __new__(
        cls,
        *,
        token_key: bytes = ...,
        consent_default: bool = True,
        decision_share: float = 1.0,
        time_zone: str = "UTC",
    ) -> Self: ...

    # -- the log ------------------------------------------------------------------------------------------------------
    def prepare_events(self, request: bytes, now_ms: int, *, history: bool = False) -> EventBatch:
        """Check `RecordEventsRequest` event by event; `history` lifts the lower limit on time.

        Raises InvalidRequestError when the bytes are malformed, empty of events or hold more than 1,000.
        """
    def apply(self, records: Sequence[tuple[int, int, int, bytes]]) -> int:
        """Apply log records (offset, `RecordKind`, time_ms, payload) in order; return how many changed the state.

        Records at or below `offset` are skipped, so a repeat is harmless. One whose payload cannot be read is passed
        over and counted in `stats()["skipped_records"]`.
        """
    def apply_late_erasure(
        self,
        erasure: tuple[int, int, int, bytes],
        since: Sequence[tuple[int, int, int, bytes]],
        of_user: Sequence[tuple[int, int, int, bytes]],
    ) -> bool:
        """Apply the record of an erasure, and anew what the log took after its time and has before its offset.

        That is `since` of its visitor, and `of_user` of the user whose erasure it is part of, if these show that the
        user was back as this visitor. No answer comes in between. The records have counted for their items and do not
        again; of an anonymous id, what went over to another user at a login stays there. Those up to the time of the
        erasure, and of the user's own, are passed over. Return whether the state changed.
        """
    @property
    def offset(self) -> int:
        """Offset of the last applied record; 0 at first."""

    # -- decisions ----------------------------------------------------------------------------------------------------
    def begin(self, request: bytes, now_ms: int, *, on_trial: bool = False) -> Plan:
        """Read `RecommendRequest`, gather and filter candidates, compute their features.

        `on_trial` answers with the bundle on trial, in place of the one that serves the visitor.
        """
    def begin_all(self, requests: Sequence[bytes], now_ms: int) -> list[Plan]:
        """Begin each request, on all cores and without the interpreter's lock, for those who ask about many."""
    def decide(self, request: bytes, now_ms: int, *, on_trial: bool = False) -> Answer | Plan:
        """Do all of a decision; return the plan where onnxruntime has to score it. As `begin` and `finish`."""
    def finish(self, plan: Plan, actions: NDArray[np.float32] | None, degraded: str = "") -> Answer:
        """Rank and encode. `actions` has shape (n, h), columns as in the bundle; None ranks by the heuristic.

        `degraded` is added to the reply's list. A value that is not finite sinks its row and adds `score_not_finite`.
        """
    def explain(self, plan: Plan, actions: NDArray[np.float32] | None, degraded: str = "") -> bytes:
        """Return `ExplainResponse` of the same decision."""

    # -- reading ------------------------------------------------------------------------------------------------------
    def item(self, item_id: str) -> bytes:
        """Return `Item`; NotFoundError ITEM_NOT_FOUND."""
    def items(self, start: int, count: int) -> tuple[list[bytes], int]:
        """Return up to `count` items from position `start`, and the next position (0 at the end)."""
    def placement(self, placement_id: str) -> bytes:
        """Return `Placement` with etag; NotFoundError PLACEMENT_NOT_FOUND."""
    def placements(self) -> list[bytes]:
        """Return every `Placement`, ordered by id."""
    def control(self, control_id: str) -> bytes: ...
    def controls(self) -> list[bytes]: ...
    def profile(self, visitor_id: str) -> bytes:
        """Return `GetProfileResponse`; NotFoundError PROFILE_NOT_FOUND."""
    def unrecorded_statements(self, count: int) -> list[tuple[str, int, bytes]]:
        """Return up to `count` statements of what users took over and is in no record: user, time and `Stated` of each.

        The time is that at which the browser gave a grant; of a denial, that of the first event that showed the browser
        to be the user's, or just after the user's erasure.
        """
    @property
    def active_model(self) -> str:
        """Version of the active bundle; empty before the first activation."""
    @property
    def previous_model(self) -> str:
        """Version that was active before the active one; empty if none."""
    @property
    def trial(self) -> bytes:
        """`Trial` in force; empty if there is none."""
    def counts(self) -> dict[str, int]:
        """Return the numbers of visitors, items, placements and controls; costs nothing."""
    def stats(self) -> dict[str, int]:
        """Return counts and bytes: visitors, items, events, visitor_bytes, item_bytes, neighbour_bytes, …."""

    # -- sequence vectors ---------------------------------------------------------------------------------------------
    @property
    def waiting(self) -> int:
        """Visitors whose sequence vector is missing or behind.

        An event puts its visitor in where the bundle that serves it has an encoder; so does a request of one that has a
        history and no vector of that bundle.
        """
    def take_histories(self, count: int) -> Histories:
        """Return the histories of up to `count` visitors that wait, first come, first served; end it by one of these.

        Visitors that do not consent to personalisation are left out and wait no longer.
        """
    def set_vectors(self, histories: Histories, vectors: NDArray[np.float32]) -> int:
        """Give the visitors their vectors, shape (n, width), kept as bytes; return how many got one.

        A vector that is not finite is refused, and its visitor waits on. A visitor that was erased, denied consent or
        logged in meanwhile gets none. InvalidRequestError where the shape is not that of the encoder.
        """
    def put_back(self, histories: Histories) -> None:
        """Let the visitors wait on, since their vectors could not be made."""

    # -- snapshots and bundles ----------------------------------------------------------------------------------------
    def save_snapshot(self, path: str) -> int:
        """Write the state to `path` (beside, fsync, rename); return its offset. OSError if the disk refuses."""
    def load_snapshot(self, path: str) -> int:
        """Replace the state by that of `path`; return its offset. CorruptError if damaged; nothing has changed then."""
    def load_bundle(self, folder: str) -> Bundle:
        """Read manifest, lists and vectors of a bundle and keep them under its version.

        An activation record switches to it. BundleError names what does not fit (schema hash, time zone, shape).
        """
    def unload_bundle(self, version: str) -> None:
        """Let go of a bundle that does not serve; BundleError for the one that does. Not loaded: nothing happens."""

def feature_names() -> list[str]:
    """Return the names of the columns of `Plan.features`, in order."""

def feature_table() -> list[tuple[str, str, str, str]]:
    """Return name, group, unit and meaning of each column of `Plan.features`, in order.

    A group tells of one thing, e.g. `price` or `time`; a unit is text such as `ln(1 + days)`.
    """

def schema_hash() -> str:
    """Return the hash of the feature table; a bundle trained with another one is refused."""

def history_length() -> int:
    """Return how many of its last interactions the engine remembers of a visitor."""

def source_names() -> list[str]:
    """Return the names that `SourceUse.source` may have."""

def check_item(item: bytes, index: int) -> None:
    """Raise InvalidRequestError when an `Item` breaks a limit; the field is named `items[index].…`."""

def check_profile(profile: bytes) -> None: ...
def check_placement(placement: bytes) -> None: ...
def check_control(control: bytes) -> None: ...
def encode_events(
    event_ids: Sequence[str],
    event_types: NDArray[np.int32],
    time_ms: NDArray[np.int64],
    visitor_ids: Sequence[str],
    session_ids: Sequence[str],
    store_ids: Sequence[str],
    queries: Sequence[str],
    line_offsets: NDArray[np.int64],
    item_ids: Sequence[str],
    quantities: NDArray[np.int32],
    price_micros: NDArray[np.int64],
    currency: str,
) -> list[tuple[str, str, bytes]]:
    """Return event id, visitor key and `Event` payload of each event, for the log.

    Event i has lines [line_offsets[i], line_offsets[i+1]). A negative price means none; empty text means unset.
    InvalidRequestError names the column that does not fit, or the first event outside its limits: `events[i].…`.
    """

def stated_after(known: bytes, kind: int, time_ms: int, payload: bytes) -> tuple[bytes, bytes]:
    """Return what is stated about a visitor after a record, `Stated`, and traits and answers that count, `Profile`.

    Parameters
    ----------
    known : `Stated`; empty where nothing was stated
    kind, time_ms, payload : of the record, whose message is `Profile` or `Stated`

    Raises
    ------
    InvalidRequestError : the bytes hold no such messages, or records of the kind state nothing
    """

def event_columns(
    records: Sequence[tuple[int, int, bytes]],
) -> dict[str, list[str] | NDArray[np.int64] | NDArray[np.float64]]:
    """Return one row an event line from (offset, time_ms, payload of EVENT): the columns of the table `events`.

    Text columns are lists: event_id, visitor_id (the key: user_id if set, else visitor_id), anonymous_id, session_id,
    item_id, event_type (lower case, without prefix), store_id, country_code, device, campaign_id, query, currency,
    attribution_token. Number columns are arrays: log_offset, line, time_ms, quantity, position (int64) and price
    (float64, NaN if none). A SEARCH event gives one row with an empty item_id. InvalidRequestError if a payload is not
    an `Event`.
    """

def item_neighbours(
    rows: NDArray[np.uint32],
    items: NDArray[np.uint32],
    shape: tuple[int, int],
    *,
    measure: str,
    k: int,
    shrink: float,
    alpha: float = 0.5,
    weights: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.uint64], NDArray[np.uint32], NDArray[np.float32]]:
    """Return offsets, neighbours and scores of each item's `k` nearest items by common rows (visitors or baskets).

    `shape` is (rows, items). `measure` is cosine, asymmetric, tf_idf, lift, jaccard or conditional; the first three
    take weights, `alpha` is the share of the item itself in the denominator of asymmetric. Without weights a repeated
    pair counts once, with weights they are added. ValueError names the row at fault.
    """

def sequence_neighbours(
    sequence: NDArray[np.uint32],
    items: NDArray[np.uint32],
    time_ms: NDArray[np.int64],
    n_items: int,
    *,
    window: int,
    k: int,
    damping: tuple[float, float],
    backward: float = 0.0,
    half_life_ms: int = 0,
) -> tuple[NDArray[np.uint64], NDArray[np.uint32], NDArray[np.float32]]:
    """Return offsets, items and scores of each item's `k` best rules; rows are sorted by sequence, then time.

    A pair weighs 1 / distance, times `backward` from the later item to the earlier, halved with every `half_life_ms`
    (0: never) of its age before the newest row, over the rows of both items to the powers `damping`.
    """

def count_pairs(
    rows: NDArray[np.uint32], items: NDArray[np.uint32], shape: tuple[int, int], span: tuple[int, int]
) -> tuple[NDArray[np.uint64], NDArray[np.uint32], NDArray[np.uint32]]:
    """Return offsets, other items and counts: how many rows each item of `span` shares with every item, itself too.

    `shape` is (rows, items); a repeated pair of row and item counts once.
    """

def neighbours_of_pairs(
    parts: list[tuple[NDArray[np.uint64], NDArray[np.uint32], NDArray[np.uint32]]],
    sizes: NDArray[np.uint32],
    first: int,
    *,
    measure: str,
    k: int,
    shrink: float,
    alpha: float = 0.5,
) -> tuple[NDArray[np.uint64], NDArray[np.uint32], NDArray[np.float32]]:
    """Return what `item_neighbours` gives for a span of items, from the pairs that parts of its rows counted.

    The span begins at the item `first`, the same for all `parts`; `sizes` are the rows of every item in all parts.
    `measure` is cosine, asymmetric, jaccard or conditional. ValueError names the argument at fault.
    """

def basket_vectors(
    visitors: NDArray[np.uint32],
    baskets: NDArray[np.uint32],
    items: NDArray[np.uint32],
    shape: tuple[int, int],
    *,
    n_groups: int,
    within: float,
    across: float,
) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.float32]]:
    """Return visitors, items and values of each visitor's vector; rows are sorted by visitor, time, basket.

    `shape` is (visitors, items). Baskets fall into `n_groups` by age; decays are between 0 and 1.
    """

def blend_baskets(
    visitors: NDArray[np.uint32],
    items: NDArray[np.uint32],
    values: NDArray[np.float32],
    shape: tuple[int, int],
    span: tuple[int, int],
    *,
    neighbours: int,
    alpha: float,
    length: int,
    only_new: bool = False,
) -> tuple[NDArray[np.uint64], NDArray[np.uint32], NDArray[np.float32]]:
    """Return offsets, items and scores of the next baskets of a span of visitors, from the vectors of all.

    `shape` is (visitors, items). `alpha` is the share of the visitor's own vector beside the mean of those of the
    `neighbours` most alike. `only_new` leaves out what the visitor has bought.
    """

def score_by_histories(
    table: tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.float32]],
    queries: tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.uint32], NDArray[np.float32]],
    out: NDArray[np.float32],
    *,
    neighbours: int,
    power: float,
    nearby: float,
    behind: float,
) -> None:
    """Write into `out` (queries, items) how much the histories nearest to each query hold of each item.

    `table` is offsets, items (distinct in a history, in order of time) and the factor of each history's likeness;
    `queries` are the history not to look at (2^32 - 1: none), offsets, items and their weights, older items first.
    A near history says likeness ** `power`, times `nearby` for each step from the item in common that comes last in
    the query, times `behind` for items before that one. ValueError names the argument at fault.
    """

def als_half_sweep(
    offsets: NDArray[np.int64],
    columns: NDArray[np.uint32],
    fixed: NDArray[np.float32],
    rows: NDArray[np.float32],
    *,
    unobserved: float,
    regularisation: float,
    scaling: float,
    steps: int,
) -> None:
    """Move `rows` (n, d) towards the least squares of iALS for the factors `fixed` (m, d), by `steps` of CG each.

    Row r has the distinct columns `columns[offsets[r]:offsets[r + 1]]`; every pair weighs `unobserved`, an observed one
    1 more, a row's squared length `regularisation` * (entries + `unobserved` * m) ** `scaling`. ValueError names the
    argument at fault.
    """

def rank_targets(
    scores: NDArray[np.float32], offsets: NDArray[np.int64], targets: NDArray[np.uint32], k: int
) -> tuple[NDArray[np.float64], NDArray[np.uint32]]:
    """Return the place from 0 of every target in its row of `scores` (n, n_items), and the `k` best items of each row.

    Row r has the targets `targets[offsets[r]:offsets[r + 1]]`. Equal scores share the middle of their places; -inf and
    NaN rank nowhere: infinity. The items are flat, best first, ties by item. ValueError names the argument at fault.
    """
