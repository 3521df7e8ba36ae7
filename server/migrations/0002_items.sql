-- The catalogue as it is now; the row with the highest log_offset counts.
CREATE TABLE IF NOT EXISTS items
(
    item_id String,
    log_offset Int64,
    set_ms Int64 COMMENT 'when the values were true at their source',
    deleted Bool,
    title String,
    category_path Array(String),
    brand String,
    price Nullable(Float64),
    sale_price Nullable(Float64),
    currency LowCardinality(String),
    availability LowCardinality(String),
    stock_quantity Nullable(Int64),
    release_ms Nullable(Int64),
    payload String COMMENT 'shopkeeper.v1.Item'
)
ENGINE = ReplacingMergeTree(log_offset)
ORDER BY item_id
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
