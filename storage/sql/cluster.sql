-- Reads for operators, of all tenants.

-- name: view
-- Living nodes by name, and all shards with their living owners; one snapshot.
WITH peer AS MATERIALIZED (
    SELECT n.boot, n.name, n.address, n.state, n.hb_seq FROM nodes n WHERE n.state <> 'dead'
), owned AS MATERIALIZED (
    SELECT s.shard, p.boot AS owner, s.epoch FROM shards s LEFT JOIN peer p ON p.boot = s.owner_boot
)
SELECT ARRAY(SELECT boot FROM peer ORDER BY name, boot) AS boots,
       ARRAY(SELECT name FROM peer ORDER BY name, boot) AS names,
       ARRAY(SELECT address FROM peer ORDER BY name, boot) AS addresses,
       ARRAY(SELECT state FROM peer ORDER BY name, boot) AS states,
       ARRAY(SELECT hb_seq FROM peer ORDER BY name, boot) AS beats,
       ARRAY(SELECT shard FROM owned ORDER BY shard) AS shards,
       ARRAY(SELECT owner FROM owned ORDER BY shard) AS owners,
       ARRAY(SELECT epoch FROM owned ORDER BY shard) AS epochs;

-- name: mark
-- $1 name, $2 'leaving' or 'up'.
UPDATE nodes SET state = $2 WHERE name = $1 AND state <> 'dead' RETURNING boot;

-- name: count
-- $1 how many parts; $2, $3 and $4 the part (from 0), shard and end (due_ms) of each reach; $5 to $9 the part, shard,
-- queue and end (due_ms, id) of queues that are held less far; $10 before (accept_us), $11 where a part's counting ends.
-- Queues are found as `load` finds them: all while there are few, else by jumping from one to the next lower.
WITH RECURSIVE few AS MATERIALIZED (
    SELECT count(*) <= 32 AS yes FROM (SELECT FROM queues LIMIT 33) AS q
), reach AS MATERIALIZED (
    SELECT * FROM unnest($2::int4[], $3::int2[], $4::int8[]) AS r (part, shard, until_ms)
), present (shard, queue_id) AS (
    SELECT DISTINCT r.shard, 2147483647 FROM reach r WHERE NOT (SELECT yes FROM few)
    UNION ALL
    SELECT h.shard, (SELECT t.queue_id FROM tasks t WHERE t.shard = h.shard AND t.queue_id < h.queue_id
                      ORDER BY t.queue_id DESC, t.due_ms DESC, t.id DESC LIMIT 1)
      FROM present h WHERE h.queue_id IS NOT NULL
), wanted AS (
    SELECT r.part, r.shard, r.until_ms, q.queue_id FROM reach r CROSS JOIN queues q WHERE (SELECT yes FROM few)
    UNION ALL
    SELECT r.part, r.shard, r.until_ms, h.queue_id FROM reach r JOIN present h ON h.shard = r.shard
     WHERE h.queue_id < 2147483647
), held AS MATERIALIZED (
    SELECT w.part, w.shard, w.queue_id, coalesce(e.due_ms, w.until_ms) AS due_ms,
           coalesce(e.id, 'ffffffff-ffff-ffff-ffff-ffffffffffff') AS id
      FROM wanted w
      LEFT JOIN unnest($5::int4[], $6::int2[], $7::int4[], $8::int8[], $9::uuid[]) AS e (part, shard, queue_id, due_ms, id)
        ON e.part = w.part AND e.shard = w.shard AND e.queue_id = w.queue_id
)
SELECT (SELECT count(*)
          FROM (SELECT FROM held h
                 CROSS JOIN LATERAL (SELECT FROM tasks t
                                      WHERE t.shard = h.shard AND t.queue_id = h.queue_id
                                        AND (t.due_ms, t.id) <= (h.due_ms, h.id) AND t.accept_us <= $10
                                      LIMIT $11) AS t
                 WHERE h.part = p.part
                 LIMIT $11) AS c) AS count
  FROM generate_series(0, $1::int4 - 1) AS p (part)
 ORDER BY p.part;
