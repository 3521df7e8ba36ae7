-- When somebody dismissed a record that can never be mended; 0 if nobody did.
ALTER TABLE bad_events ADD COLUMN IF NOT EXISTS dismiss_ms Int64 DEFAULT 0;
