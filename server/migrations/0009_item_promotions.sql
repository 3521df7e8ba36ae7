-- When and how widely items are advertised; the four arrays run along the intervals of an item.
ALTER TABLE items
    ADD COLUMN IF NOT EXISTS promotion_kinds Array(LowCardinality(String)) COMMENT 'mailer or display',
    ADD COLUMN IF NOT EXISTS promotion_start_ms Array(Int64),
    ADD COLUMN IF NOT EXISTS promotion_end_ms Array(Int64) COMMENT 'first moment after the interval',
    ADD COLUMN IF NOT EXISTS promotion_shares Array(Float64) COMMENT 'of stores, issues or pages that take part, 0 to 1';
