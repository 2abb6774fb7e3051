-- transaction: none
-- Tracing a charge through its movements, in the order of time.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_lagerbewegung_charge_datum ON lagerbewegung (charge_id, datum);
