-- lock_timeout: 1s
-- Stock per article, summed over all movements.
-- Built beside the old view and renamed, so that readers never meet an empty one and wait for the rename only.
DROP MATERIALIZED VIEW IF EXISTS mv_lagerbestand_pro_artikel__next;
CREATE MATERIALIZED VIEW mv_lagerbestand_pro_artikel__next AS
SELECT artikel_id, sum(menge) AS bestand
FROM lagerbewegung
GROUP BY artikel_id;
-- REFRESH ... CONCURRENTLY wants a unique index on plain columns.
CREATE UNIQUE INDEX mv_lagerbestand_pro_artikel__next_artikel_id_key ON mv_lagerbestand_pro_artikel__next (artikel_id);

DROP MATERIALIZED VIEW IF EXISTS mv_lagerbestand_pro_artikel;
ALTER MATERIALIZED VIEW mv_lagerbestand_pro_artikel__next RENAME TO mv_lagerbestand_pro_artikel;
ALTER INDEX mv_lagerbestand_pro_artikel__next_artikel_id_key RENAME TO mv_lagerbestand_pro_artikel_artikel_id_key;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'erp_app') THEN
        GRANT SELECT ON mv_lagerbestand_pro_artikel TO erp_app;
    END IF;
END
$$;
