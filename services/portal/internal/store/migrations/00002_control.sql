-- One schema for SQLite and PostgreSQL. Times are microseconds since 1970 in UTC; 0 is never.
-- name_text is text that sorts by its bytes: on PostgreSQL the domain of migration 1, whose order
-- does not change with the operating system's locale; to SQLite every type is a hint.

-- +goose Up
CREATE TABLE counter (
    one        bigint NOT NULL PRIMARY KEY CHECK (one = 1),
    revision   bigint NOT NULL,
    deployment text   NOT NULL
);

CREATE TABLE objects (
    kind             name_text NOT NULL,
    scope            name_text NOT NULL, -- the tenant or virtual cluster that the name is within, or empty
    name             name_text NOT NULL,
    tenant           name_text NOT NULL, -- whose it is; empty: nobody's
    revision         bigint    NOT NULL,
    created_revision bigint    NOT NULL,
    created_at       bigint    NOT NULL,
    changed_at       bigint    NOT NULL,
    document         text      NOT NULL,
    PRIMARY KEY (kind, scope, name)
);
CREATE INDEX objects_of_tenant ON objects (tenant, kind, scope, name);

CREATE TABLE labels (
    kind  name_text NOT NULL,
    scope name_text NOT NULL,
    name  name_text NOT NULL,
    label name_text NOT NULL,
    value name_text NOT NULL,
    PRIMARY KEY (kind, scope, name, label)
);
CREATE INDEX labels_by_value ON labels (kind, label, value, scope, name);

-- What only one object may have, such as a host: the primary key decides.
CREATE TABLE claims (
    space name_text NOT NULL,
    scope name_text NOT NULL,
    value name_text NOT NULL,
    kind         name_text NOT NULL,
    object_scope name_text NOT NULL,
    object_name  name_text NOT NULL,
    PRIMARY KEY (space, scope, value)
);
CREATE INDEX claims_of_object ON claims (kind, object_scope, object_name);

-- Which field of which object names which other object.
CREATE TABLE refs (
    kind     name_text NOT NULL,
    scope    name_text NOT NULL,
    name     name_text NOT NULL,
    field    name_text NOT NULL,
    to_kind  name_text NOT NULL,
    to_scope name_text NOT NULL,
    to_name  name_text NOT NULL,
    PRIMARY KEY (kind, scope, name, field)
);
CREATE INDEX refs_to ON refs (to_kind, to_scope, to_name, kind, scope, name);

-- The secrets of service accounts: what verifies them, never the secrets.
CREATE TABLE secrets (
    virtual_cluster name_text NOT NULL,
    account         name_text NOT NULL,
    id              name_text NOT NULL,
    revision        bigint    NOT NULL,
    created_at      bigint    NOT NULL,
    expires_at      bigint    NOT NULL,
    imported        bigint    NOT NULL,
    verifiers       text      NOT NULL,
    PRIMARY KEY (virtual_cluster, account, id)
);

-- The log of changes: who, what, when, from where, before and after.
CREATE TABLE audit (
    revision   bigint    NOT NULL,
    seq        bigint    NOT NULL, -- within one change of several objects
    at         bigint    NOT NULL,
    actor      name_text NOT NULL,
    actor_kind name_text NOT NULL,
    address    name_text NOT NULL,
    request    name_text NOT NULL,
    action     name_text NOT NULL,
    kind       name_text NOT NULL,
    scope      name_text NOT NULL,
    name       name_text NOT NULL,
    tenant     name_text NOT NULL,
    detail     text      NOT NULL,
    before     text      NOT NULL,
    after      text      NOT NULL,
    PRIMARY KEY (revision, seq)
);
CREATE INDEX audit_of_tenant ON audit (tenant, revision, seq);
CREATE INDEX audit_of_object ON audit (kind, scope, name, revision, seq);

-- Who may call the API. The hash is SHA-256 of a random secret.
CREATE TABLE tokens (
    id           name_text NOT NULL PRIMARY KEY,
    hash         name_text NOT NULL,
    name         name_text NOT NULL,
    role         name_text NOT NULL,
    tenant       name_text NOT NULL,
    read_only    bigint    NOT NULL,
    created_at   bigint    NOT NULL,
    created_by   name_text NOT NULL,
    expires_at   bigint    NOT NULL,
    revoked_at   bigint    NOT NULL,
    last_used_at bigint    NOT NULL
);

-- What the fleet is to be told: a bundle whose revision is above the published one.
CREATE TABLE bundles (
    kind      name_text NOT NULL,
    name      name_text NOT NULL,
    revision  bigint    NOT NULL,
    published bigint    NOT NULL, -- 0: never
    deleted   bigint    NOT NULL,
    PRIMARY KEY (kind, name)
);
CREATE INDEX bundles_pending ON bundles (revision) WHERE published < revision;

-- +goose Down
DROP TABLE bundles;
DROP TABLE tokens;
DROP TABLE audit;
DROP TABLE secrets;
DROP TABLE refs;
DROP TABLE claims;
DROP TABLE labels;
DROP TABLE objects;
DROP TABLE counter;
