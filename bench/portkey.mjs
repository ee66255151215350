// Loaded before Portkey's gateway, which listens on every interface, and which of itself ends every
// stream on a current Node with "TypeError: immutable": it writes into the headers of a fetched
// response. Here it stays on this machine, and gets a response whose headers it may write into.
import net from 'node:net'

const listen = net.Server.prototype.listen
net.Server.prototype.listen = function (port, ...rest) {
  const done = rest.filter((each) => typeof each === 'function')
  return listen.call(this, { port, host: '127.0.0.1' }, ...done)
}

const fetched = globalThis.fetch
globalThis.fetch = async (...asked) => {
  const { body, status, statusText, headers } = await fetched(...asked)
  return new Response(body, { status, statusText, headers: new Headers(headers) })
}
