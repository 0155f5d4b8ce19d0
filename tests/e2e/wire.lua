-- MessagePack-RPC over pooled cosockets: one call outstanding per connection, and a connection
-- taken from the pool for every call. That is why the steps of one event may arrive at the server
-- on different connections.

local msgpack = require "MessagePack"

local _M = {}

local KEEPALIVE_MS = 60000
local CHUNK = 8192

-- A gateway sends every Lua string as msgpack str, valid UTF-8 or not. What must arrive as bin,
-- and what must stay a map although it is empty, is marked by one of these metatables.
local Binary, Map = {}, {}

function _M.binary(text)
  return setmetatable({ text }, Binary)
end

function _M.map(fields)
  return setmetatable(fields, Map)
end

msgpack.set_string("string_compat")
msgpack.set_number("double")
msgpack.set_array("without_hole")

msgpack.packers["userdata"] = msgpack.packers["nil"] -- ngx.null

local pack_plain_table = msgpack.packers["table"]
msgpack.packers["table"] = function(buffer, value)
  local mark = getmetatable(value)
  if mark == Binary then
    return msgpack.packers["binary"](buffer, value[1])
  elseif mark == Map then
    local size = 0
    for _ in pairs(value) do
      size = size + 1
    end
    return msgpack.packers["map"](buffer, value, size)
  end
  return pack_plain_table(buffer, value)
end

local last_msgid = 0 -- per nginx worker: the workers' ids overlap, as they do in a gateway

-- Reads until the reply to `msgid` is complete. Notifications may come before it.
local function read_reply(sock, msgid, on_notification)
  local function next_chunk()
    return (sock:receiveany(CHUNK))
  end

  for _, message in msgpack.unpacker(next_chunk) do
    if message[1] == 2 then
      on_notification(message[2], message[3])
    elseif message[1] ~= 1 then
      error("the server sent a message of type " .. tostring(message[1]))
    elseif message[2] ~= msgid then
      error("the reply to call " .. tostring(message[2]) .. " answers call " .. msgid)
    else
      return message[4], message[3]
    end
  end
  return nil, "no data"
end

-- Returns result, error. Raises when the server breaks the protocol: the client then gets a 500.
function _M.call(socket_path, pool, method, argument, on_notification)
  local sock = ngx.socket.tcp()
  local ok, err = sock:connect("unix:" .. socket_path, { pool = pool })
  if not ok then
    return nil, err
  end

  last_msgid = last_msgid + 1
  local msgid = last_msgid
  ok, err = sock:send(msgpack.pack({ 0, msgid, method, { argument } }))
  if not ok then
    sock:close()
    return nil, err
  end

  local result
  result, err = read_reply(sock, msgid, on_notification)
  -- After a time-out too, so a reply that comes too late meets the wrong call: the server's duty
  -- is to answer in time.
  sock:setkeepalive(KEEPALIVE_MS)
  return result, err
end

return _M
