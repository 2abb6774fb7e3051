-- transaction: none
-- Article search by category, in the order of names.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_artikel_kat_name ON artikel (kategorie, name);
