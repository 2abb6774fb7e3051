-- lock_timeout: 1s
-- Number of charges per category, 0 for a category without any.
-- Built beside the old view and renamed, so that readers never meet an empty one and wait for the rename only.
DROP MATERIALIZED VIEW IF EXISTS mv_chargen_pro_kategorie__next;
CREATE MATERIALIZED VIEW mv_chargen_pro_kategorie__next AS
SELECT a.kategorie, count(c.id) AS anzahl
FROM artikel AS a
LEFT JOIN charge AS c ON c.artikel_id = a.id
GROUP BY a.kategorie;
-- REFRESH ... CONCURRENTLY wants a unique index on plain columns.
CREATE UNIQUE INDEX mv_chargen_pro_kategorie__next_kategorie_key ON mv_chargen_pro_kategorie__next (kategorie);

DROP MATERIALIZED VIEW IF EXISTS mv_chargen_pro_kategorie;
ALTER MATERIALIZED VIEW mv_chargen_pro_kategorie__next RENAME TO mv_chargen_pro_kategorie;
ALTER INDEX mv_chargen_pro_kategorie__next_kategorie_key RENAME TO mv_chargen_pro_kategorie_kategorie_key;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'erp_app') THEN
        GRANT SELECT ON mv_chargen_pro_kategorie TO erp_app;
    END IF;
END
$$;
