-- What the shop states about visitors, merged; the row with the highest log_offset counts.
CREATE TABLE IF NOT EXISTS profiles
(
    visitor_id String,
    log_offset Int64,
    trait_names Array(String),
    trait_values Array(String),
    personalization Nullable(Bool) COMMENT 'consent; NULL while not answered',
    training Nullable(Bool) COMMENT 'consent; NULL while not answered',
    marketing Nullable(Bool) COMMENT 'consent; NULL while not answered',
    payload String COMMENT 'shopkeeper.v1.Profile'
)
ENGINE = ReplacingMergeTree(log_offset)
ORDER BY visitor_id
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
