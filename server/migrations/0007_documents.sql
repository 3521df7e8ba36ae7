-- Placements and controls as they are now; the row with the highest log_offset counts.
CREATE TABLE IF NOT EXISTS documents
(
    kind LowCardinality(String) COMMENT 'placement or control',
    document_id String,
    log_offset Int64,
    deleted Bool,
    payload String COMMENT 'shopkeeper.v1.Placement or shopkeeper.v1.Control'
)
ENGINE = ReplacingMergeTree(log_offset)
ORDER BY (kind, document_id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
