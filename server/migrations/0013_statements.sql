-- What was stated about visitors, record by record: of a visitor whose erasure comes late, `profiles` is made anew of it.
CREATE TABLE IF NOT EXISTS statements
(
    visitor_id String,
    log_offset Int64,
    kind Int64 COMMENT 'shopkeeper.v1.RecordKind',
    time_ms Int64 COMMENT 'when a log took it',
    payload String COMMENT 'the message of its kind'
)
ENGINE = ReplacingMergeTree
ORDER BY (visitor_id, log_offset)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
