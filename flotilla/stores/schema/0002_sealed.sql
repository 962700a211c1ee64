-- Bodies are sealed: each row names the key that sealed it, and a key that is dropped erases what it sealed.
-- The key lies here wrapped by a key that is not in the database, and so does the person's name: as a keyed hash.
create table keys (
    id      bigint generated always as identity unique,  -- a person that comes back gets another one
    tenant  text not null collate "C",
    person  bytea not null,
    wrapped bytea not null,
    primary key (tenant, person)
);

-- What was recorded before this step lies open, under no key; from now on every body is sealed.
alter table facts rename column kind to type;
alter table facts
    add column version integer not null default 1,
    add column key bigint,
    add constraint facts_sealed check (key is not null) not valid;
alter table facts
    alter column version drop default,
    alter column body set storage external;  -- what is sealed can't be compressed

create table snapshots (
    tenant  text not null collate "C",
    actor   text not null collate "C",
    seq     bigint not null,
    version integer not null,
    key     bigint not null,
    keys    bigint[] not null,  -- of all that it was folded from: when one is dropped, it must go
    body    bytea not null,
    primary key (tenant, actor)
);
alter table snapshots alter column body set storage external;
-- One that a single key sealed goes with it by itself.
create index snapshots_mixed on snapshots (tenant) where cardinality(keys) > 1;

create table reminders (
    tenant     text not null collate "C",
    actor      text not null collate "C",
    name       text not null collate "C",
    bucket     smallint not null,
    due        timestamptz not null,
    repeat     jsonb,
    all_missed boolean not null,
    key        bigint not null,
    primary key (tenant, actor, name)
);
create index reminders_due on reminders (bucket, due);

create table letters (
    tenant text not null collate "C",
    id     text not null collate "C",
    actor  text not null collate "C",
    at     timestamptz not null,
    tries  integer not null,
    key    bigint not null,
    body   bytea not null,
    primary key (tenant, id)
);
create index letters_by_age on letters (tenant, at, id);

-- A row belongs to one of the tenants that the statement was made for. In a sub-select, so that the list
-- is taken apart once a statement and not once a row.
do $$
declare t text;
begin
    drop policy tenant_only on facts;
    drop policy tenant_only on unfinished;
    foreach t in array array['facts', 'unfinished', 'keys', 'snapshots', 'reminders', 'letters'] loop
        execute format('alter table %I enable row level security', t);
        execute format($policy$create policy tenant_only on %I
            using (tenant = any ((select string_to_array(nullif(current_setting('app.tenants', true), ''), ','))::text[]))
            with check (tenant = any ((select string_to_array(nullif(current_setting('app.tenants', true), ''), ','))::text[]))
        $policy$, t);
    end loop;
    -- As `facts`; not `unfinished` and `reminders`, whose owner looks across tenants in two functions below.
    foreach t in array array['keys', 'snapshots', 'letters'] loop
        execute format('alter table %I force row level security', t);
    end loop;
end $$;

drop function append_facts;
drop function read_facts;
drop function list_actors;

-- FL001: a writer's key is not there any more. FL002: the record that it goes on from was erased.
-- FL003: a reminder is not pending any more. A writer that is ahead of the record would leave a gap.
create function check_record(tenants text[], actors text[], seqs bigint[]) returns void language plpgsql as $$
declare ahead boolean; gone boolean;
begin
    -- Each row by its full key: with stale statistics a join would scan all of the tenant's facts.
    select bool_or(not found.there), bool_or(found.erased) into ahead, gone
        from unnest(tenants, actors, seqs) w (tenant, actor, seq)
        cross join lateral (
            select count(*) > 0 as there, bool_or(f.key is not null
                    and not exists (select from keys k where k.id = f.key)) as erased
                from facts f where f.tenant = w.tenant and f.actor = w.actor and f.seq = w.seq) found
        where w.seq > 0;
    if ahead then
        raise unique_violation using message = 'the expected seq is not there';
    elsif gone then
        raise exception using errcode = 'FL002', message = 'the record is erased';
    end if;
end $$;

create function check_keys(used bigint[]) returns void language plpgsql as $$
begin
    if exists (select from unnest(used) u (id) where not exists (select from keys k where k.id = u.id)) then
        raise exception using errcode = 'FL001', message = 'a key is not there';
    end if;
end $$;

-- Makes the keys that are not there, of two makers the first one's; none for a record that was erased.
create function claim_keys(tenants text[], persons bytea[], fresh bytea[], actors text[], seqs bigint[])
    returns table (key bigint, person bytea, wrapped bytea) language plpgsql as $$
#variable_conflict use_column
begin
    perform set_config('app.tenants', array_to_string(tenants, ','), true);
    perform check_record(tenants, actors, seqs);
    insert into keys (tenant, person, wrapped)
        select * from unnest(tenants, persons, fresh) n (tenant, person, wrapped) order by 1, 2
        on conflict do nothing;
    return query select k.id, k.person, k.wrapped from keys k
        join unnest(tenants, persons) n (tenant, person) using (tenant, person);
end $$;

-- The reminders of a batch: those that go, which must be due at that very time if they have one, then those
-- that are set. The rows are locked in one order everywhere: two hosts would deadlock otherwise.
create function change_reminders(gone jsonb, made jsonb) returns void language plpgsql as $$
declare fired bigint;
begin
    if gone is not null then
        perform from reminders r
            join jsonb_to_recordset(gone) as g (tenant text, actor text, name text) using (tenant, actor, name)
            order by r.tenant, r.actor, r.name for update of r;
        with went as (
            delete from reminders r
                using jsonb_to_recordset(gone) as g (tenant text, actor text, name text, due timestamptz)
                where r.tenant = g.tenant and r.actor = g.actor and r.name = g.name
                    and (g.due is null or g.due = r.due)
                returning g.due)
        select count(went.due) into fired from went;
        if fired < (select count(g.due) from jsonb_to_recordset(gone) as g (due timestamptz)) then
            raise exception using errcode = 'FL003', message = 'a reminder is not pending';
        end if;
    end if;
    if made is not null then
        insert into reminders (tenant, actor, name, bucket, due, repeat, all_missed, key)
            select m.tenant, m.actor, m.name, m.bucket, m.due, m.repeat, m.all_missed, m.key
            from jsonb_to_recordset(made) as m (tenant text, actor text, name text, bucket smallint,
                due timestamptz, repeat jsonb, all_missed boolean, key bigint)
            order by 1, 2, 3
            on conflict (tenant, actor, name) do update set due = excluded.due, repeat = excluded.repeat,
                all_missed = excluded.all_missed, key = excluded.key;
    end if;
end $$;

-- One round trip, one transaction, many actors, each once: the group commit of the journal.
-- An array for each column of the appends (a_), of the appends without entries (b_) and of the entries.
create function append_facts(
    of_tenants text[],
    a_tenants text[], a_actors text[], a_expected bigint[], a_keys bigint[],
    b_tenants text[], b_actors text[], b_expected bigint[],
    tenants text[], actors text[], seqs bigint[], types text[], versions integer[], ats timestamptz[],
    keys_used bigint[], bodies bytea[],
    begun_tenants text[], begun_actors text[], done_tenants text[], done_actors text[],
    gone jsonb, made jsonb
) returns void language plpgsql as $$
begin
    perform set_config('app.tenants', array_to_string(of_tenants, ','), true);
    perform check_record(a_tenants, a_actors, a_expected);
    perform check_keys(a_keys);
    insert into facts (tenant, actor, seq, type, version, at, key, body)
        select * from unnest(tenants, actors, seqs, types, versions, ats, keys_used, bodies);
    if cardinality(b_tenants) > 0 and exists (
            select from unnest(b_tenants, b_actors, b_expected) b (tenant, actor, seq)
            join facts f on f.tenant = b.tenant and f.actor = b.actor and f.seq = b.seq + 1) then
        raise unique_violation using message = 'there is more than the expected seq';
    end if;
    perform change_reminders(gone, made);
    insert into unfinished (tenant, actor)
        select * from unnest(begun_tenants, begun_actors) on conflict do nothing;
    delete from unfinished u using unnest(done_tenants, done_actors) as d (tenant, actor)
        where u.tenant = d.tenant and u.actor = d.actor;
end $$;

-- Each row with its key; where that is null, and `key` is not, it was dropped.
create function read_facts(of_tenant text, of_actor text, after bigint, most bigint)
    returns table (seq bigint, at timestamptz, type text, version integer, body bytea,
                   key bigint, person bytea, wrapped bytea) language plpgsql as $$
begin
    perform set_config('app.tenants', of_tenant, true);
    return query select f.seq, f.at, f.type, f.version, f.body, f.key, k.person, k.wrapped
        from facts f left join keys k on k.id = f.key
        where f.tenant = of_tenant and f.actor = of_actor and f.seq > after order by f.seq limit most;
end $$;

-- The snapshot, if there is one, as a row of no type; then the entries after it.
create function load_actor(of_tenant text, of_actor text)
    returns table (seq bigint, at timestamptz, type text, version integer, body bytea,
                   key bigint, person bytea, wrapped bytea) language plpgsql as $$
declare kept bigint;
begin
    perform set_config('app.tenants', of_tenant, true);
    select s.seq into kept from snapshots s where s.tenant = of_tenant and s.actor = of_actor;
    if kept is not null then
        return query select s.seq, null::timestamptz, null::text, s.version, s.body, s.key, k.person, k.wrapped
            from snapshots s left join keys k on k.id = s.key
            where s.tenant = of_tenant and s.actor = of_actor and s.seq = kept;
        kept := case when found then kept else 0 end;  -- a newer one came between
    end if;
    return query select * from read_facts(of_tenant, of_actor, coalesce(kept, 0), null);
end $$;

-- A snapshot holds what all the entries up to its seq said, so it goes with each of their keys.
create function keep_snapshot(of_tenant text, of_actor text, of_seq bigint, of_version integer,
                              of_key bigint, of_body bytea) returns void language plpgsql as $$
declare old snapshots; used bigint[];
begin
    perform set_config('app.tenants', of_tenant, true);
    perform pg_advisory_xact_lock_shared(5137205, hashtext(of_tenant));  -- no key is dropped meanwhile
    select * into old from snapshots s where s.tenant = of_tenant and s.actor = of_actor;
    if old.seq >= of_seq then
        return;
    end if;
    perform check_record(array[of_tenant], array[of_actor], array[of_seq]);
    select array_agg(distinct k.id) into used from (
        select f.key as id from facts f where f.tenant = of_tenant and f.actor = of_actor
            and f.seq > coalesce(old.seq, 0) and f.seq <= of_seq and f.key is not null
        union all select unnest(old.keys) union all select of_key) k;
    perform check_keys(array[of_key]);
    if exists (select from unnest(used) u (id) where not exists (select from keys k where k.id = u.id)) then
        raise exception using errcode = 'FL002', message = 'the record is erased';
    end if;
    insert into snapshots as s (tenant, actor, seq, version, key, keys, body)
        values (of_tenant, of_actor, of_seq, of_version, of_key, used, of_body)
        on conflict (tenant, actor) do update set seq = excluded.seq, version = excluded.version,
            key = excluded.key, keys = excluded.keys, body = excluded.body
            where s.seq < excluded.seq;
end $$;

create function list_actors(of_tenant text, of_kind text, before text, most bigint)
    returns table (actor text, seq bigint, at timestamptz, type text, version integer, body bytea,
                   key bigint, person bytea, wrapped bytea) language plpgsql as $$
begin
    perform set_config('app.tenants', of_tenant, true);
    return query
        with newest as (
            select f.actor, last.seq as last_seq from facts f
                left join keys k on k.id = f.key
                cross join lateral (
                    select l.seq, l.key, (select true from keys kl where kl.id = l.key) as kept from facts l
                    where l.tenant = of_tenant and l.actor = f.actor order by l.seq desc limit 1) last
            where f.tenant = of_tenant and f.seq = 1 and starts_with(f.actor, of_kind || '/')
                and (before is null or f.actor < of_kind || '/' || before)
                and (f.key is null or k.id is not null) and (last.key is null or last.kept)
            order by f.actor desc limit most)
        select f.actor, f.seq, f.at, f.type, f.version, f.body, f.key, k.person, k.wrapped
            from newest n
            join facts f on f.tenant = of_tenant and f.actor = n.actor and f.seq in (1, n.last_seq)
            left join keys k on k.id = f.key
            order by f.actor desc, f.seq;
end $$;

-- Drops a person's key, and what would be of no use or still readable without it.
create function erase_person(of_tenant text, of_person bytea) returns boolean language plpgsql as $$
declare dropped bigint;
begin
    perform set_config('app.tenants', of_tenant, true);
    perform pg_advisory_xact_lock(5137205, hashtext(of_tenant));  -- no snapshot is kept meanwhile
    delete from keys k where k.tenant = of_tenant and k.person = of_person returning k.id into dropped;
    if dropped is null then
        return false;
    end if;
    delete from snapshots s
        where s.tenant = of_tenant and cardinality(s.keys) > 1 and s.keys @> array[dropped];
    delete from letters l where l.tenant = of_tenant and l.key = dropped;
    delete from reminders r where r.tenant = of_tenant and r.key = dropped;
    delete from unfinished u where u.tenant = of_tenant and dropped = (
        select f.key from facts f where f.tenant = of_tenant and f.actor = u.actor order by f.seq desc limit 1);
    return true;
end $$;

create function read_reminders(of_tenant text, of_actor text)
    returns table (name text, due timestamptz, repeat jsonb, all_missed boolean) language plpgsql as $$
begin
    perform set_config('app.tenants', of_tenant, true);
    return query select r.name, r.due, r.repeat, r.all_missed from reminders r
        where r.tenant = of_tenant and r.actor = of_actor order by r.name;
end $$;

-- The key of an actor's last entry: a letter to it goes with the same person.
create function actor_key(of_tenant text, of_actor text)
    returns table (seq bigint, key bigint, person bytea, wrapped bytea) language plpgsql as $$
begin
    perform set_config('app.tenants', of_tenant, true);
    return query select f.seq, f.key, k.person, k.wrapped from facts f left join keys k on k.id = f.key
        where f.tenant = of_tenant and f.actor = of_actor order by f.seq desc limit 1;
end $$;

create function put_letter(of_tenant text, of_id text, of_actor text, of_at timestamptz, of_tries integer,
                           of_key bigint, of_body bytea) returns void language plpgsql as $$
begin
    perform set_config('app.tenants', of_tenant, true);
    perform check_keys(array[of_key]);
    insert into letters (tenant, id, actor, at, tries, key, body)
        values (of_tenant, of_id, of_actor, of_at, of_tries, of_key, of_body) on conflict do nothing;
end $$;

create function list_letters(of_tenant text, only_actor text, most bigint)
    returns table (id text, actor text, at timestamptz, tries integer, body bytea,
                   key bigint, person bytea, wrapped bytea) language plpgsql as $$
begin
    perform set_config('app.tenants', of_tenant, true);
    return query select l.id, l.actor, l.at, l.tries, l.body, l.key, k.person, k.wrapped
        from letters l join keys k on k.id = l.key
        where l.tenant = of_tenant and (only_actor is null or l.actor = only_actor)
        order by l.at, l.id limit most;
end $$;

create function remove_letter(of_tenant text, of_id text)
    returns table (id text, actor text, at timestamptz, tries integer, body bytea,
                   key bigint, person bytea, wrapped bytea) language plpgsql as $$
begin
    perform set_config('app.tenants', of_tenant, true);
    return query with gone as (
        delete from letters l where l.tenant = of_tenant and l.id = of_id returning l.*)
        select l.id, l.actor, l.at, l.tries, l.body, l.key, k.person, k.wrapped
            from gone l join keys k on k.id = l.key;
end $$;

-- The second look across tenants: who is to be reminded of what, and when. After an outage a million may be
-- overdue, so they are read from the index, a bucket at a time and about twice as many as are wanted.
create function due_reminders(before timestamptz, of_buckets smallint[], most bigint)
    returns table (tenant text, actor text, name text, due timestamptz, repeat jsonb, all_missed boolean)
    language plpgsql security definer set search_path = public, pg_temp as $$
declare
    each bigint := 2 * most / greatest(cardinality(of_buckets), 1) + 16;  -- looked at in each bucket
    until timestamptz;  -- up to which every bucket was seen whole; null for all of them
    found bigint;
begin
    loop
        each := least(each, most);
        with seen as (
            select b.bucket, d.due from unnest(of_buckets) b (bucket)
            cross join lateral (select r.due from reminders r
                where r.bucket = b.bucket and r.due <= before order by r.due limit each) d),
        whole as (
            select min(cut.at) as until
            from (select max(s.due) as at from seen s group by s.bucket having count(*) = each) cut)
        select w.until, count(*) into until, found from seen s, whole w
            where w.until is null or s.due <= w.until group by w.until;
        exit when until is null or found >= most;
        each := each * 4;
    end loop;
    return query select d.* from unnest(of_buckets) b (bucket)
        cross join lateral (
            select r.tenant, r.actor, r.name, r.due, r.repeat, r.all_missed from reminders r
            where r.bucket = b.bucket and r.due <= coalesce(until, before) order by r.due limit most) d
        order by d.due, d.tenant, d.actor, d.name limit most;
end $$;

alter function unfinished_actors(bigint) set search_path = public, pg_temp;
revoke execute on function unfinished_actors, due_reminders from public;
