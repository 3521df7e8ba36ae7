-- Records that could not be read, with the reason; look here after a change of the contract.
CREATE TABLE IF NOT EXISTS bad_events
(
    log_offset Int64,
    kind Int64,
    time_ms Int64,
    visitor_id String,
    record_id String,
    reason String,
    payload String
)
ENGINE = ReplacingMergeTree
ORDER BY log_offset
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
