-- Visitors who were forgotten, so that what comes late about them is left out; the newest erasure counts.
CREATE TABLE IF NOT EXISTS erasures
(
    visitor_id String,
    log_offset Int64,
    time_ms Int64
)
ENGINE = ReplacingMergeTree(log_offset)
ORDER BY visitor_id
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
