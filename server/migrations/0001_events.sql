-- One row a line of an event. A line that arrives twice is one row once parts merge, and at once where FINAL is read.
CREATE TABLE IF NOT EXISTS events
(
    log_offset Int64,
    event_id String,
    line Int64,
    time_ms Int64,
    visitor_id String COMMENT 'key: user id if known, else the anonymous id',
    anonymous_id String,
    session_id String,
    event_type LowCardinality(String),
    item_id String,
    quantity Int64,
    price Nullable(Float64) COMMENT 'paid for one unit',
    currency LowCardinality(String),
    position Int64 COMMENT 'in the slate, from 1; 0 if not known',
    store_id LowCardinality(String),
    country_code LowCardinality(String),
    device LowCardinality(String),
    campaign_id LowCardinality(String),
    query String,
    attribution_token String
)
ENGINE = ReplacingMergeTree(log_offset)
ORDER BY (visitor_id, event_id, line)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
