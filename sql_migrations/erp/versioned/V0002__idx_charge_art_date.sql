-- transaction: none
-- Charges of an article by their day of production.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_charge_art_date ON charge (artikel_id, produktionsdatum);
