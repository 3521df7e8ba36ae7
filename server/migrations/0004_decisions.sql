-- One row a slate; the arrays run along its items, best first.
CREATE TABLE IF NOT EXISTS decisions
(
    log_offset Int64,
    slate Int64 COMMENT 'index in the response',
    request_id String,
    time_ms Int64,
    visitor_id String,
    placement_id LowCardinality(String),
    model_version LowCardinality(String),
    item_ids Array(String),
    scores Array(Float32),
    reasons Array(LowCardinality(String)),
    applied_controls Array(String),
    degraded Array(LowCardinality(String))
)
ENGINE = ReplacingMergeTree
ORDER BY (placement_id, time_ms, log_offset, slate)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
