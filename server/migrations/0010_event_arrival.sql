-- When the log took the event, so that what came late, or by a clock that is ahead, can be told.
ALTER TABLE events
    ADD COLUMN IF NOT EXISTS arrive_ms Int64 COMMENT '0: not known';
