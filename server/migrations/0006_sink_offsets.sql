-- How far the log is in the tables.
CREATE TABLE IF NOT EXISTS sink_offsets
(
    name String,
    log_offset Int64
)
ENGINE = ReplacingMergeTree(log_offset)
ORDER BY name
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
