-- What tenants may read of the log: who acted for them, and revisions that tell nothing of others.

-- +goose Up
-- Whose token or principal made a change; empty: those who run the gateway did.
ALTER TABLE audit ADD COLUMN actor_tenant name_text NOT NULL DEFAULT '';
UPDATE audit SET actor_tenant = tenant WHERE actor_kind = 'kafka';
UPDATE audit SET actor_tenant = COALESCE((SELECT t.tenant FROM tokens t WHERE t.name || ' (' || t.id || ')' = audit.actor), '') WHERE actor_kind = 'token';

-- Random keys, in hexadecimal, which all portals of the database share.
CREATE TABLE keys (
    name  name_text NOT NULL PRIMARY KEY,
    value text      NOT NULL
);

-- +goose Down
DROP TABLE keys;
ALTER TABLE audit DROP COLUMN actor_tenant;
