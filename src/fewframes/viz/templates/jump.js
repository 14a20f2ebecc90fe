const video = document.querySelector('video');
for (const link of document.querySelectorAll('[data-at]')) link.addEventListener('click', event => {
  event.preventDefault();
  if (link.dataset.video && video.src !== link.dataset.video) video.src = link.dataset.video;
  video.hidden = false; video.currentTime = Number(link.dataset.at); video.play(); video.scrollIntoView({behavior: 'smooth'});
});
