-- Answers with their times, and the denials of browsers that bind the visitor; the other columns have what counts of it.
ALTER TABLE profiles ADD COLUMN IF NOT EXISTS stated String COMMENT 'shopkeeper.v1.Stated; empty: times are not known';
