-- Partitions of history.

-- name: partitions
-- $1 parent. Every partition by name, also one whose removal was interrupted (`pending`), and tables of that name that
-- are no partition any more or not yet (`attached` false).
SELECT c.relname::text AS name, i.inhrelid IS NOT NULL AS attached, coalesce(i.inhdetachpending, false) AS pending
  FROM pg_class c
  LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
 WHERE c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = $1::text::regclass)
   AND c.relkind = 'r' AND c.relname ~ ('^' || $1 || '_[0-9]+$')
 ORDER BY c.relname;
